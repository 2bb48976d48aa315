//! The one door through which the agent changes the world.
//!
//! Whatever the agent does outside of its own memory is a [`Step`], and passes [`take`]. In builds for development a test
//! can have any of them fail, or the agent killed just before or after it (`faults`); in builds for use the door is
//! nothing but a call.

#[cfg(debug_assertions)]
mod faults;

use std::{fmt, path::Path};

use agent_api::Problem;

use super::world_error::WorldError;

macro_rules! steps {
    ($($(#[$what:meta])* $step:ident = $name:literal,)+) => {
        /// One kind of change that the agent makes to the world.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Step {
            $($(#[$what])* $step,)+
        }

        impl Step {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$step),+];

            /// As tests and logs name it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$step => $name,)+
                }
            }
        }
    };
}

steps! {
    /// Maps and programs are loaded, attached and pinned, or adopted.
    OpenDatapath = "open-datapath",
    /// The programs that only help and count are put in their place.
    Assist = "assist",
    /// The program that steers is put in its place.
    TakeOverSteering = "take-over-steering",
    /// The state file is replaced.
    WriteState = "write-state",
    /// Listeners get their tag and their slots.
    TakeOverListeners = "take-over-listeners",
    /// Connections that were open before get their tag.
    TakeOverFlows = "take-over-flows",
    /// A candidate is connected to.
    Probe = "probe",
    /// New connections go to another generation.
    Steer = "steer",
    /// The kernel asks us for these ports, or for one less.
    SetEndpoints = "set-endpoints",
    /// A reuseport group gets the program that moves unaccepted connections.
    GuardQueue = "guard-queue",
    /// It loses it again.
    LeaveQueue = "leave-queue",
    /// Moved connections get the tag of the generation that has them.
    MoveFlows = "move-flows",
    /// A listener that was given connections is woken.
    WakeListener = "wake-listener",
    /// A directory for a generation's output.
    MakeLogDirectory = "make-log-directory",
    /// A cgroup for the agent, or for a generation.
    MakeCgroup = "make-cgroup",
    /// Processes are taken into a generation, and with them whatever they will fork.
    FollowProcesses = "follow-processes",
    /// What a generation's binds meet.
    SetBindRule = "set-bind-rule",
    /// A generation's first process is started.
    Launch = "launch",
    /// Names that a generation may take along as it ends get second ones.
    KeepNames = "keep-names",
    /// Those that it took along are given back.
    GiveNamesBack = "give-names-back",
    /// A generation is told to end.
    Signal = "signal",
    /// A generation is ended.
    Kill = "kill",
    /// The maps forget a generation.
    ForgetGeneration = "forget-generation",
    /// An empty cgroup is removed.
    RemoveCgroup = "remove-cgroup",
    /// Sockets lose their tags and the options that we set.
    ReleaseSockets = "release-sockets",
    /// Processes go back to the cgroup that they would be in without us.
    ReturnProcesses = "return-processes",
    /// The maps forget a service.
    ForgetService = "forget-service",
    /// The output of generations that are gone is removed.
    RemoveLogs = "remove-logs",
    /// Programs are detached, and maps go.
    RemovePins = "remove-pins",
    /// State file, socket, lock and directories go.
    RemoveFiles = "remove-files",
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Takes a step.
///
/// # Errors
///
/// Those of the change.
pub(super) fn take<T>(
    step: Step,
    act: impl FnOnce() -> Result<T, WorldError>,
) -> Result<T, WorldError> {
    #[cfg(not(debug_assertions))]
    let _ = step;
    #[cfg(debug_assertions)]
    let armed = faults::before(step)?;
    let made = act();
    #[cfg(debug_assertions)]
    armed.after();
    made
}

/// The same for the start of an agent, which says by itself what has kept it from it.
///
/// # Errors
///
/// Those of the change.
pub(super) fn change<T>(
    step: Step,
    act: impl FnOnce() -> Result<T, Problem>,
) -> Result<T, Problem> {
    take(step, || Ok(act()))?
}

/// Where tests say which change is to fail. Without effect in builds for use.
pub(super) fn obey_faults_in(runtime_dir: &Path) {
    #[cfg(debug_assertions)]
    faults::obey(runtime_dir);
    #[cfg(not(debug_assertions))]
    let _ = runtime_dir;
}
