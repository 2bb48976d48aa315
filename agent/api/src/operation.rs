//! What can be asked for, and where.

use hyper::Method;

use crate::{Problem, ProblemKind, SCHEMA};

/// What can be asked for over the control socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Says what the agent is.
    Agent,
    /// Shows all services.
    Services,
    /// Takes charge of a port.
    Attach,
    /// Shows one service.
    Service,
    /// Gives a service back to the kernel.
    Detach,
    /// Brings a new generation in, or says what that would do.
    Upgrade,
    /// Puts the previous generation back.
    Undo,
    /// Lists the flows of all services.
    AllFlows,
    /// Lists the flows of one service.
    Flows,
    /// Lists the rollouts of all services.
    AllHistory,
    /// Lists the rollouts of one service.
    History,
    /// Shows one rollout.
    Rollout,
    /// Follows a rollout until it has ended.
    Progress,
    /// Says where the kernel would steer a connection, and why.
    Explain,
    /// Lists the last events, or follows them.
    Events,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Agent,
        Self::Services,
        Self::Attach,
        Self::Service,
        Self::Detach,
        Self::Upgrade,
        Self::Undo,
        Self::AllFlows,
        Self::Flows,
        Self::AllHistory,
        Self::History,
        Self::Rollout,
        Self::Progress,
        Self::Explain,
        Self::Events,
    ];

    /// How it is asked for.
    pub const fn method(self) -> Method {
        match self {
            Self::Attach | Self::Upgrade | Self::Undo => Method::POST,
            Self::Detach => Method::DELETE,
            Self::Agent
            | Self::Services
            | Self::Service
            | Self::AllFlows
            | Self::Flows
            | Self::AllHistory
            | Self::History
            | Self::Rollout
            | Self::Progress
            | Self::Explain
            | Self::Events => Method::GET,
        }
    }

    /// Where, with `{service}` (a name or a port) and `{id}` for what is to be filled in.
    pub fn path(self) -> String {
        at(match self {
            Self::Agent => "/agent",
            Self::Services | Self::Attach => "/services",
            Self::Service | Self::Detach => "/services/{service}",
            Self::Upgrade => "/services/{service}/upgrade",
            Self::Undo => "/services/{service}/undo",
            Self::AllFlows => "/flows",
            Self::Flows => "/services/{service}/flows",
            Self::AllHistory => "/history",
            Self::History => "/services/{service}/history",
            Self::Rollout => "/services/{service}/rollouts/{id}",
            Self::Progress => "/services/{service}/rollouts/{id}/progress",
            Self::Explain => "/explain",
            Self::Events => "/events",
        })
    }
}

/// A path below the version.
pub(crate) fn at(path: &str) -> String {
    format!("/v{SCHEMA}{path}")
}

/// Why there is nothing at a path: who asks for it may speak another version.
pub fn nothing_at(path: &str, agent: &str) -> Problem {
    match version_of(path) {
        Some(asked) if asked != SCHEMA => other_version(asked, agent),
        Some(_) | None => Problem::new(ProblemKind::NotFound, "there is no such resource")
            .fix(format!("this is agent {agent}, version {SCHEMA} of the API: see its `docs/api`")),
    }
}

fn other_version(asked: u32, agent: &str) -> Problem {
    let message = format!(
        "the agent that runs ({agent}) speaks version {SCHEMA} of the API, and was asked in version {asked}"
    );
    Problem::new(ProblemKind::Version, message).fix(match asked > SCHEMA {
        true => {
            "put the newer agent in its place with `agent daemon --background --replace`, which harms no connection"
        }
        false => "use the `agent` command that was installed with it, or a client for that version",
    })
}

/// Of `/v7/…` it is 7.
fn version_of(path: &str) -> Option<u32> {
    let (version, _) = path.strip_prefix("/v")?.split_once('/')?;
    let is_number = !version.is_empty() && version.bytes().all(|it| it.is_ascii_digit());
    is_number.then(|| version.parse().unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ExitCode;

    #[test]
    fn each_operation_has_a_place_of_its_own() {
        let places = Operation::ALL.map(|it| format!("{} {}", it.method(), it.path()));
        for (number, place) in places.iter().enumerate() {
            assert!(place.contains(&format!(" /v{SCHEMA}/")), "{place}");
            assert_eq!(places.iter().position(|it| it == place), Some(number), "{place}");
        }
        for (number, operation) in Operation::ALL.into_iter().enumerate() {
            assert_eq!(operation as usize, number, "{operation:?}");
        }
    }

    #[test]
    fn who_speaks_another_version_is_told_both_and_what_to_do() {
        let [newer, older] = [SCHEMA + 1, SCHEMA - 1].map(|version| {
            let problem = nothing_at(&format!("/v{version}/services"), "0.1.0");
            assert_eq!(problem.kind.exit_code(), ExitCode::Preflight);
            let both = [format!("speaks version {SCHEMA} "), format!("in version {version}")];
            assert!(both.iter().all(|it| problem.message.contains(it)), "{problem:?}");
            problem.fix.unwrap()
        });
        assert!(newer.contains("--replace") && older.contains("that was installed with it"));
    }

    #[test]
    fn what_is_no_version_is_not_taken_for_one() {
        for path in ["/", "/v", "/v/services", "/vx/services", "/v-1/services", "/services"] {
            assert_eq!(nothing_at(path, "0.1.0").kind, ProblemKind::NotFound, "{path}");
        }
        assert_eq!(nothing_at(&at("/nothing"), "0.1.0").kind, ProblemKind::NotFound);
        assert_eq!(nothing_at("/v99999999999999999/x", "0.1.0").kind, ProblemKind::Version);
    }
}
