//! Fixed values for the tests.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use agent_rollout::{Kind, Outcome, PortHold, RolloutId, Status};
use agent_terms::{Endpoint, GenerationNumber, LocalAddress, ServiceName};

use crate::{
    AgentView, Attached, Detached, EventKind, EventView, Events, Explanation, FlowView, Flows,
    GenerationState, GenerationView, History, ListenerView, Offer, RolloutView, SCHEMA,
    ServiceState, ServiceView, Services, Serving, UpgradePreview,
};

fn name(name: &str) -> ServiceName {
    name.parse().expect("it parses")
}

fn moment(milliseconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(1_700_000_000_000 + milliseconds)
}

/// A generation in this state.
pub fn generation(number: u32, state: GenerationState) -> GenerationView {
    let listener = |cookie| ListenerView { bound: ([0, 0, 0, 0], 8080).into(), cookie };
    GenerationView {
        number: GenerationNumber(number),
        release: (number > 1).then(|| format!("v{number}").parse().expect("it parses")),
        state,
        takes_new_connections: state == GenerationState::Primary,
        pids: vec![4711, 4712, 4713, 4714, 4715],
        command: vec!["./server-v2".into(), "--greeting".into(), "a\nb".into()],
        launched: number > 1,
        listeners: vec![listener(4097), listener(4098)],
        hold: PortHold::Shared,
        note: None,
        new_connections: 120_000,
        open_flows: 37,
        reset_flows: 2,
        age: Duration::from_secs(12_345),
        deadline_in: None,
        log: (number > 1).then(|| format!("/run/agent/services/web/{number}.log").into()),
    }
}

/// One per status and outcome.
pub fn rollouts() -> Vec<RolloutView> {
    let ended = |outcome| Status::Ended(outcome);
    [
        Status::MakingReady,
        Status::Settling,
        Status::Draining,
        ended(Outcome::Completed),
        ended(Outcome::DeadlinePassed { flows_left: 3 }),
        ended(Outcome::OldDied { flows: 0 }),
        ended(Outcome::NotReady { reason: "it ended with exit status 1".into() }),
        ended(Outcome::RolledBack { reason: "generation 2 died".into() }),
        ended(Outcome::OldDied { flows: 2 }),
        ended(Outcome::NewDied),
        ended(Outcome::Completed),
        ended(Outcome::Outlived { flows_left: 0 }),
    ]
    .into_iter()
    .zip(1..)
    .map(|(status, id)| rollout(id, status))
    .collect()
}

fn rollout(id: u64, status: Status) -> RolloutView {
    let settling = status == Status::Settling;
    let draining = status == Status::Draining;
    let is_over = matches!(status, Status::Ended(_));
    let failed = matches!(status, Status::Ended(Outcome::NotReady { .. }));
    RolloutView {
        schema: SCHEMA,
        service: name("web"),
        id: RolloutId(id),
        kind: if id == 6 { Kind::Undo } else { Kind::Upgrade },
        from: GenerationNumber(1),
        to: GenerationNumber(2),
        release: (id == 4).then(|| "v2".parse().expect("it parses")),
        began: moment(0),
        switched_after: (settling || draining || is_over && !failed)
            .then_some(Duration::from_millis(750)),
        ended_after: is_over.then_some(Duration::from_secs(95)),
        listens: status == Status::MakingReady,
        log: None,
        obstacle: None,
        can_go_back: settling,
        settles_in: settling.then_some(Duration::from_secs(2)),
        flows_left: draining.then_some(37),
        idle: draining.then_some(Duration::from_secs(4)),
        deadline_in: draining.then_some(Duration::from_secs(3_590)),
        waited: if draining { 12 } else { 0 },
        // The last one: the others let the old generation go.
        standby_for: (id == 11).then_some(Duration::from_mins(10)),
        serving: None,
        output: if failed { vec!["cannot open config".into()] } else { Vec::new() },
        status,
    }
}

/// One that is steady, one that rolls out, one that is degraded.
pub fn services() -> Services {
    let service = |text, address, state, generations| ServiceView {
        name: name(text),
        endpoints: vec![Endpoint { number: 0, port: 8080, address, since: None }],
        state,
        steered: 119_000,
        plain: 0,
        fallback: 0,
        unreached: 0,
        moved: 0,
        stranded: 0,
        generations,
        rollouts: Vec::new(),
        setback: None,
        troubles: Vec::new(),
        serving: (state == ServiceState::Degraded).then_some(Serving::Nobody),
        beside: Vec::new(),
        warnings: Vec::new(),
        waiting: None,
    };
    let any = LocalAddress::Ipv4(Ipv4Addr::UNSPECIFIED);
    let steady = vec![generation(1, GenerationState::Primary)];
    let mut draining = generation(1, GenerationState::Draining);
    draining.deadline_in = Some(Duration::from_secs(3_590));
    draining.hold = PortHold::Plain;
    draining.note = Some("has a Multipath TCP listener, which nobody can steer to".into());
    let mut next = generation(2, GenerationState::Primary);
    next.hold = PortHold::Moved;
    next.pids.truncate(1);
    next.age = Duration::from_secs(42);
    let mut rolling =
        service("web", LocalAddress::DualStack, ServiceState::RollingOut, vec![draining, next]);
    rolling.rollouts = vec![rollout(2, Status::Draining)];
    rolling.fallback = 1;
    rolling.unreached = 2;
    rolling.moved = 3;
    rolling.stranded = 1;
    let mut dead = generation(4, GenerationState::Dead);
    dead.pids.clear();
    dead.listeners.clear();
    dead.hold = PortHold::Unbound;
    Services {
        schema: SCHEMA,
        services: vec![
            service("api", any, ServiceState::Steady, steady),
            service("mail", any, ServiceState::Degraded, vec![dead]),
            rolling,
        ],
    }
}

/// What an attach answers.
pub fn attached() -> Attached {
    Attached {
        schema: SCHEMA,
        changed: true,
        service: services().services.remove(0),
        warnings: vec!["two processes share the port".into()],
    }
}

/// What a detach answers.
pub fn detached() -> Detached {
    Detached {
        schema: SCHEMA,
        changed: true,
        service: name("web"),
        last: true,
        warnings: Vec::new(),
    }
}

/// What a dry run answers.
pub fn preview() -> UpgradePreview {
    UpgradePreview {
        schema: SCHEMA,
        from: GenerationNumber(1),
        to: GenerationNumber(2),
        steps: vec!["launch `/opt/web/server`".into(), "wait until it listens".into()],
        warnings: vec!["the limit nproc=0:0 is not inherited".into()],
    }
}

/// A flow of a generation, and one that is nobody's.
pub fn flows() -> Flows {
    let flow = |generation: Option<u32>, remote: SocketAddr, idle| FlowView {
        service: name("web"),
        generation: generation.map(GenerationNumber),
        remote,
        local: ([192, 0, 2, 1], 8080).into(),
        state: "ESTAB".into(),
        accepted: generation.is_some(),
        idle,
    };
    Flows {
        schema: SCHEMA,
        flows: vec![
            flow(Some(1), ([203, 0, 113, 7], 50_000).into(), Some(Duration::from_secs(4))),
            flow(None, "[2001:db8::7]:50000".parse().expect("it parses"), None),
        ],
    }
}

/// All of them as one history.
pub fn history() -> History {
    History { schema: SCHEMA, rollouts: rollouts() }
}

/// Events of services, and of the agent itself.
pub fn events() -> Events {
    let event = |sequence, generation: Option<u32>, kind, message: &str| EventView {
        schema: SCHEMA,
        sequence,
        at: moment(sequence),
        service: (sequence < 4).then(|| name("web")),
        generation: generation.map(GenerationNumber),
        kind,
        message: message.into(),
    };
    Events {
        schema: SCHEMA,
        events: vec![
            event(1, None, EventKind::Attached, "port 8080 is attached"),
            event(2, Some(2), EventKind::Switched, "new connections go to generation 2"),
            event(3, Some(1), EventKind::Warning, "generation 1 has no listener left"),
            event(4, None, EventKind::Warning, "`/run/agent/lock` was removed, and was made again"),
        ],
    }
}

/// Where a connection would go.
pub fn explanation() -> Explanation {
    let listener = ListenerView { bound: ([0, 0, 0, 0], 8080).into(), cookie: 4097 };
    Explanation {
        schema: SCHEMA,
        local: ([192, 0, 2, 1], 8080).into(),
        service: Some(name("web")),
        offers: vec![
            Offer { generation: GenerationNumber(2), listeners: vec![listener] },
            Offer { generation: GenerationNumber(1), listeners: Vec::new() },
        ],
        steps: vec!["the endpoint is *:8080".into(), "the primary is generation 2".into()],
    }
}

/// The agent itself.
pub fn agent() -> AgentView {
    AgentView {
        schema: SCHEMA,
        version: "0.1.0".into(),
        pid: 4000,
        network_namespace: 4_026_531_840,
        runtime_dir: "/run/agent".into(),
        pin_dir: "/sys/fs/bpf/agent".into(),
        cgroup: "/sys/fs/cgroup/agent".into(),
    }
}
