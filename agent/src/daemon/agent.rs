//! The single writer: takes one message after the other, and makes the world follow.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use agent_api::Problem;
use agent_rollout::{Generation, Timestamp};
use agent_terms::{GenerationId, ServiceId};
use tokio::sync::watch;

use super::{
    control::message::{Inbox, Message},
    course::{Course, End},
    effects::{held_ports::HeldPorts, moves::Moves, outstanding::Outstanding},
    launch::groups::Groups,
    looks::{returns::Returns, strangers::Strangers},
    memory::Memories,
    start::presence::Presence,
    state::{above::Above, journal::Journal, state_file::Record, troubles::Troubles},
    watch::watcher::Watcher,
};
use crate::{
    datapath::Datapath,
    host::{
        cgroup::{Cgroup, Hierarchy},
        launch::Launcher,
    },
    places::Places,
};

/// Everything the agent knows. Owned by its thread.
pub(super) struct Agent {
    pub(super) places: Places,
    /// What was made above those.
    pub(super) above: Above,
    pub(super) network_namespace: u64,
    pub(super) boot_id: String,
    /// When this agent began: what the kernel programs before its own have missed, it cannot know.
    pub(super) began: Timestamp,
    pub(super) presence: Presence,
    pub(super) hierarchy: Hierarchy,
    /// Holds one cgroup for each launched generation, of other agents too.
    pub(super) cgroup: Cgroup,
    /// Which of those are ours.
    pub(super) groups: Groups,
    /// The cgroups of generations that their services do not know any more, until they are removed.
    pub(super) former_groups: HashMap<GenerationId, PathBuf>,
    pub(super) datapath: Datapath,
    pub(super) records: BTreeMap<ServiceId, Record>,
    pub(super) watcher: Arc<Watcher>,
    pub(super) launcher: Arc<Launcher>,
    pub(super) journal: Journal,
    pub(super) troubles: Troubles,
    /// Counts changes, for whoever follows a rollout.
    pub(super) changes: watch::Sender<u64>,
    /// What is known of each generation besides the records.
    pub(super) memories: Memories,
    /// What was decided and is not done yet.
    pub(super) outstanding: Outstanding,
    /// When to look at what servers have written.
    pub(super) next_log_look: Option<Instant>,
    /// Listeners on our ports that are nobody's.
    pub(super) strangers: Strangers,
    /// Services of which a server may just be started again.
    pub(super) returns: Returns,
    /// Until when a listener that appears is not looked at.
    pub(super) listeners_rest: Instant,
    /// How many SYN cookies had been sent when we last looked.
    pub(super) cookies_sent: u64,
    /// How long the last count of flows took.
    pub(super) count_cost: Duration,
    /// Connections that the kernel moved from closed listeners.
    pub(super) moves: HashMap<ServiceId, Moves>,
    /// Public ports of servers that listen elsewhere.
    pub(super) held_ports: BTreeMap<ServiceId, HeldPorts>,
    /// Services with connections that nobody has been found to have, because the kernel maps were built anew.
    pub(super) unattributed: HashSet<ServiceId>,
    pub(super) course: Course,
}

/// How long a failed effect waits for its next try.
pub(super) const RETRY: Duration = Duration::from_secs(1);

impl Agent {
    /// Runs until told to stop, or until the last service is detached. Says whether anything is left to steer.
    pub(super) fn run(mut self, queue: &Receiver<Message>) -> Result<(), Problem> {
        let mut inbox = Inbox::of(queue);
        loop {
            match inbox.take(self.next_wake()) {
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(message) => self.take(message),
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.keep_time();
            if self.course.is_over() {
                break;
            }
        }
        self.end()
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Request(request) => self.answer(request),
            Message::Kernel(event) => self.note_kernel(event),
            Message::ReportsLost(count) => self.note_lost_reports(count),
            Message::ProcessEnded(generation, ending) => {
                self.note_process_ended(generation, ending);
            }
            Message::ProbeAnswered(generation) => self.look_at_probe(generation),
            Message::LaunchReported(generation) => self.look_at_launch(generation),
            Message::CgroupEmptied(generation) => self.note_cgroup_emptied(generation),
            // What was attached before is minded, whoever goes.
            Message::AskerGone if self.records.is_empty() => self.course.end_with(End::Forsaken),
            Message::AskerGone => {}
            Message::LauncherGone => self.course.end_with(End::Bereft),
            Message::Removed => self.mend(),
            Message::LogWritten => self.note_log_written(),
            Message::Stop => {}
        }
    }

    pub(super) fn record(&self, id: ServiceId) -> &Record {
        self.records
            .get(&id)
            .expect("ids come from `select` or from the records themselves, within one message")
    }

    pub(super) fn record_if_any(&self, id: ServiceId) -> Option<&Record> {
        self.records.get(&id)
    }

    pub(super) fn generation(&self, id: GenerationId) -> Option<&Generation> {
        self.records.get(&id.service)?.service.generation(id.number)
    }

    pub(super) fn record_mut(&mut self, id: ServiceId) -> &mut Record {
        self.records
            .get_mut(&id)
            .expect("ids come from `select` or from the records themselves, within one message")
    }
}
