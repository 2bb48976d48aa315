//! Whose failure a failure is.

use agent_load::{FailureKind, Incident};
use serde::{Deserialize, Serialize};

use super::death::Death;

/// Where a failed connection belongs.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Loss {
    /// Ours: nothing excuses it.
    Ours,
    /// Ours too: it waited to be accepted when a generation was killed, and was not moved to another one.
    Queued,
    /// A process that was killed had accepted it: no upgrade can help that.
    DiedWithServer,
    /// The only process that served was killed, and nobody had started it anew yet.
    NobodyServed,
    /// The clients' own failure. It says nothing, so that a run with such a one proves nothing.
    Generator,
}

impl Loss {
    /// Looks for the death that explains a failure of the same service. Only a connection that is known can be explained:
    /// one that was refused, or reset before it was there, is ours whoever died.
    pub(super) fn of(incident: &Incident, deaths: &[Death]) -> Self {
        if incident.kind == FailureKind::Local {
            return Self::Generator;
        }
        if deaths.iter().any(|death| in_vain(incident, death)) {
            return Self::NobodyServed;
        }
        if !is_an_end(incident.kind) {
            return Self::Ours;
        }
        let (Some(client), Some(started)) = (incident.client, incident.started) else {
            return Self::Ours;
        };
        // A later connection may have the same port.
        let during = |death: &&Death| started <= death.gone && incident.at >= death.stopped;
        let mut during = deaths.iter().filter(during).peekable();
        if during.clone().any(|death| death.accepted.contains(&client.port())) {
            return Self::DiedWithServer;
        }
        let queued =
            |death: &Death| death.queued.contains(&client.port()) || started >= death.stopped;
        match incident.generation.is_none() && during.any(queued) {
            true => Self::Queued,
            false => Self::Ours,
        }
    }
}

/// Whether a connection came when nobody was left to take it, or waited for the one that died. Somebody else may have taken
/// it: the port is free then, for whoever starts the server again.
fn in_vain(incident: &Incident, death: &Death) -> bool {
    let Some(again) = death.served_again else { return false };
    let during = |at| (death.stopped..=again).contains(&at);
    match incident.kind {
        FailureKind::Refused | FailureKind::ResetBeforeAccept => during(incident.at),
        // An upload is in the middle as soon as it has begun.
        FailureKind::ResetBeforeFirstByte
        | FailureKind::EofBeforeFirstByte
        | FailureKind::CutInTheMiddle => {
            let waited = incident.client.is_some_and(|it| death.queued.contains(&it.port()));
            let came = incident.started.is_some_and(during);
            incident.generation.is_none() && during(incident.at) && (waited || came)
        }
        _ => false,
    }
}

/// Whether a failure is the end of an established connection. All other kinds no dead server can explain.
fn is_an_end(kind: FailureKind) -> bool {
    match kind {
        FailureKind::ResetBeforeFirstByte
        | FailureKind::EofBeforeFirstByte
        | FailureKind::CutInTheMiddle => true,
        FailureKind::Refused
        | FailureKind::Unreachable
        | FailureKind::ResetBeforeAccept
        | FailureKind::TimedOut
        | FailureKind::WrongAnswer
        | FailureKind::WrongGeneration
        | FailureKind::Moved
        | FailureKind::Slow
        | FailureKind::Local => false,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::time::{Duration, Instant};

    use agent_load::Class;

    use super::*;

    /// Stood still at 1,000 ms with the connections of clients 1 and 2 accepted and that of client 3 waiting, gone at 1,010.
    struct Scene {
        begun: Instant,
        deaths: [Death; 1],
    }

    impl Scene {
        fn set() -> Self {
            let begun = Instant::now();
            let at = |milliseconds| begun + Duration::from_millis(milliseconds);
            let death = Death {
                stopped: at(1_000),
                gone: at(1_010),
                accepted: [1, 2].into(),
                queued: [3].into(),
                served_again: None,
            };
            Self { begun, deaths: [death] }
        }

        fn loss(&self, kind: FailureKind, client: u16, started: u64, failed: u64) -> Loss {
            Loss::of(&self.incident(kind, client, started, failed), &self.deaths)
        }

        fn incident(&self, kind: FailureKind, client: u16, started: u64, failed: u64) -> Incident {
            Incident {
                class: Class::OneShot,
                kind,
                detail: String::new(),
                started: Some(self.begun + Duration::from_millis(started)),
                client: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, client))),
                generation: None,
                at: self.begun + Duration::from_millis(failed),
            }
        }
    }

    use FailureKind::{CutInTheMiddle, Refused, ResetBeforeAccept, ResetBeforeFirstByte, TimedOut};

    #[test]
    fn only_what_the_dead_had_accepted_died_with_it() {
        let scene = Scene::set();
        assert_eq!(scene.loss(CutInTheMiddle, 1, 500, 1_009), Loss::DiedWithServer);
        assert_eq!(scene.loss(CutInTheMiddle, 1, 500, 3_000), Loss::DiedWithServer);
        assert_eq!(scene.loss(CutInTheMiddle, 9, 500, 1_009), Loss::Ours);
        // It had failed before anybody died.
        assert_eq!(scene.loss(CutInTheMiddle, 1, 500, 900), Loss::Ours);
        // It is another connection of the same port.
        assert_eq!(scene.loss(ResetBeforeFirstByte, 1, 1_200, 1_201), Loss::Ours);
    }

    #[test]
    fn what_waited_to_be_accepted_is_told_apart() {
        let scene = Scene::set();
        assert_eq!(scene.loss(ResetBeforeFirstByte, 3, 990, 1_009), Loss::Queued);
        assert_eq!(scene.loss(ResetBeforeFirstByte, 9, 1_005, 1_009), Loss::Queued);
        assert_eq!(scene.loss(ResetBeforeFirstByte, 9, 1_020, 1_021), Loss::Ours);
        let answered = Incident {
            generation: Some(4),
            ..scene.incident(ResetBeforeFirstByte, 9, 1_005, 1_009)
        };
        assert_eq!(Loss::of(&answered, &scene.deaths), Loss::Ours);
    }

    #[test]
    fn no_death_excuses_a_refusal_or_a_silence() {
        let scene = Scene::set();
        for kind in [Refused, ResetBeforeAccept, TimedOut, FailureKind::Slow, FailureKind::Moved] {
            assert_eq!(scene.loss(kind, 1, 500, 1_009), Loss::Ours, "{kind:?}");
        }
        let unknown =
            Incident { client: None, ..scene.incident(ResetBeforeFirstByte, 1, 500, 1_009) };
        assert_eq!(Loss::of(&unknown, &scene.deaths), Loss::Ours);
    }

    #[test]
    fn where_nobody_could_take_over_it_is_nobodys_failure_until_somebody_serves_again() {
        let mut scene = Scene::set();
        scene.deaths[0].served_again = Some(scene.begun + Duration::from_millis(1_200));
        assert_eq!(scene.loss(Refused, 9, 1_100, 1_100), Loss::NobodyServed);
        assert_eq!(scene.loss(ResetBeforeFirstByte, 3, 990, 1_009), Loss::NobodyServed);
        assert_eq!(scene.loss(ResetBeforeFirstByte, 9, 1_005, 1_009), Loss::NobodyServed);
        assert_eq!(scene.loss(CutInTheMiddle, 1, 500, 1_009), Loss::DiedWithServer);
        assert_eq!(scene.loss(CutInTheMiddle, 9, 500, 1_009), Loss::Ours);
        assert_eq!(scene.loss(CutInTheMiddle, 9, 1_050, 1_150), Loss::NobodyServed);
        assert_eq!(scene.loss(CutInTheMiddle, 9, 1_050, 1_250), Loss::Ours);
        assert_eq!(scene.loss(Refused, 9, 1_300, 1_300), Loss::Ours);
        assert_eq!(scene.loss(TimedOut, 9, 1_100, 1_150), Loss::Ours);
    }

    #[test]
    fn the_generators_own_failures_are_nobodys() {
        let scene = Scene::set();
        assert_eq!(scene.loss(FailureKind::Local, 1, 500, 1_009), Loss::Generator);
    }
}
