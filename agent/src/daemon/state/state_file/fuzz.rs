//! State files of agents that had something under way, changed.

use std::path::Path;

use agent_rollout::{
    DrainPlan, Event, Flows, Listening, Origin, Plan, PortHold, Queues, Readiness, Seen, Service,
    Timestamp, simulator,
};
use serde_json::{Value, json};

use super::{Mark, Record, StateFile, Whereabouts};
use crate::{
    daemon::launch::given::Given,
    fuzzing::{Verdict, fuzz, json::mutated_documents, mutate::Bytes},
    host::{
        context::Context,
        process::{Pid, Process},
    },
    places::Places,
};

const WORDS: [&str; 13] = [
    "\"status\":\"settling\"",
    "\"name\":\"primary\"",
    "\"name\":\"dead\"",
    "\"told\":true",
    "null",
    "{\"secs\":18446744073709551615,\"nanos\":999999999}",
    "\"584542046090y\"",
    "\"agent_state_version\":1",
    "\\u0000",
    "\\ud800",
    "[[[[",
    "1e400",
    "4294967295",
];

/// Ours, without most of what there is many of: what is decided by is to be changed as often.
fn context() -> Context {
    let mut context = Context::of(Pid::ours(), Pid::ours()).unwrap();
    context.environment = vec![("A".into(), "1".into())];
    context.limits.truncate(1);
    context.groups.truncate(1);
    if let Some(processors) = context.confinement.as_mut().and_then(|it| it.processors.as_mut()) {
        processors.truncate(1);
    }
    context
}

fn record(service: Service) -> Record {
    let context = context();
    let given = service
        .generations()
        .iter()
        .map(|it| (it.number().0, Given::launched_with(context.clone())));
    Record {
        given: given.collect(),
        service,
        context: context.clone(),
        mark: Some(Mark { user: 0, program: "server".into() }),
        origin_cgroup: "/sys/fs/cgroup/web".into(),
        unfinished: None,
        requests: [(1, serde_json::from_value(json!("a")).unwrap())].into(),
        kept_names: Vec::new(),
        starters: Vec::new(),
    }
}

/// What no service of the simulator has: names that are kept, a starter, processes and listeners.
fn with_the_rest(mut state: Value) -> Value {
    let process = serde_json::to_value(Process::open(Pid::ours()).unwrap().identity()).unwrap();
    let record = &mut state["services"][0];
    let name = json!({"directory": "/run", "file": "server.pid"});
    let content = json!({"device": 1, "inode": 2, "text": [255, 10]});
    record["kept_names"] = json!([
        {"of": 1, "leaving": 2, "name": name, "second": ".server.pid.of-generation-2.0", "file": {"device": 1, "inode": 2}, "content": content},
    ]);
    record["starters"] = json!([{
        "generation": 1,
        "starter": {
            "process": process, "child": process, "command": ["sh"], "server": ["server", [255]],
            "readers": [["tee"]], "is_busy": false,
        },
        "not_before": 0, "is_told": false, "starts": 2,
    }]);
    let generation = &mut record["service"]["generations"][0];
    generation["processes"] = json!([process]);
    generation["former_ports"] = json!([8080, 40000]);
    record["service"]["endpoints"] = json!([
        {"number": 0, "port": 8080, "address": "0.0.0.0"},
        {"number": 1, "port": 8080, "address": "*", "since": 2},
    ]);
    state
}

fn states() -> Vec<Value> {
    let services = simulator::examples();
    let above = Path::new("/sys/fs/cgroup/agent");
    let places = Places {
        runtime_dir: "/run/agent".into(),
        pin_dir: "/sys/fs/bpf/agent".into(),
        cgroup: None,
    };
    let states = services.into_iter().map(|service| StateFile {
        network_namespace: 4_026_531_840,
        boot_id: "93a5ea2e-7d3c-4bf0-b7c4-d4b1e8a7a1c1".to_owned(),
        services: vec![record(service)],
        exit_when_detached: true,
        whereabouts: Some(Whereabouts::new(&places, above)),
    });
    let states = states.map(|it| serde_json::from_slice(&it.text().unwrap()).unwrap());
    states.map(with_the_rest).collect()
}

/// All that can happen to a service next, each by itself.
fn every_event(service: &Service) -> Vec<Event> {
    let numbers = service.generations().iter().map(|it| it.number());
    let plan = Plan {
        release: None,
        ready: Readiness::Accept,
        ready_timeout: DrainPlan::READY_TIMEOUT,
        settle: DrainPlan::SETTLE,
        drain: DrainPlan::default(),
    };
    let flows = Flows { open: u64::MAX, queued: 1, idle: std::time::Duration::MAX };
    let to_each = numbers.flat_map(|number| {
        [
            Event::Covers(number, Listening { hold: PortHold::Moved, listeners: Vec::new() }),
            Event::Accepted(number),
            Event::Lacks(number, String::new()),
            Event::NotYet(number, String::new()),
            Event::Failed(number, String::new()),
            Event::Exited(number),
            Event::Deaf(number),
            Event::Stuck(number),
            Event::Listens(number),
            Event::Queues(number, Queues::Waiting(u64::MAX)),
            Event::Queues(number, Queues::Empty),
            Event::Flows(number, flows),
            Event::LastLook(number, Queues::Empty, Flows { open: 0, ..flows }),
            Event::Told(number),
        ]
    });
    let to_all = [
        Event::Upgrade(plan, Origin::Found),
        Event::Undo(DrainPlan::default()),
        Event::Restarted(Listening { hold: PortHold::Shared, listeners: Vec::new() }, Vec::new()),
        Event::CameBack,
        Event::Tick,
    ];
    to_all.into_iter().chain(to_each).collect()
}

fn go_on(mut service: Service) {
    let now = Timestamp(60_000);
    let numbers = || service.generations().iter().map(|it| it.number());
    let all = Seen {
        steering: service.targets(),
        listening: numbers().collect(),
        alive: numbers().collect(),
        mapped: numbers().collect(),
    };
    for seen in [all, Seen::default()] {
        service.resume(&seen, now);
    }
    for event in every_event(&service) {
        let mut next = service.clone();
        // What is refused leaves the state as it was.
        if next.apply(event, now).is_err() {
            assert_eq!(next, service);
        }
        let _: Option<Timestamp> = next.next_deadline();
        for rollout in next.rollouts() {
            assert!(!rollout.status.to_string().is_empty());
        }
    }
}

fn judge(text: &Bytes) -> Verdict {
    let path = Path::new("state.json");
    let Ok(state) = StateFile::parse(text.as_ref(), path) else { return Verdict::Refused };
    let again = StateFile::parse(&state.text().unwrap(), path);
    assert_eq!(again.unwrap(), state, "it reads back as something else");
    for record in state.services {
        go_on(record.service);
    }
    Verdict::Taken
}

#[test]
fn no_state_that_can_be_read_breaks_the_agent() {
    fuzz("state_file", &mutated_documents(states(), &WORDS), judge);
}
