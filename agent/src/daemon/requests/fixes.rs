//! What to do about a request that is refused.

use super::error::{RequestError, Until, listed};
use crate::daemon::state::state_share::TooMuch;

impl RequestError {
    /// What to do where a step of a detach failed, unless that says it better.
    pub(in crate::daemon) const DETACH_AGAIN: &str =
        "detach it again, which goes on where it ended";

    /// What to do about it, where that is known.
    pub(in crate::daemon) fn fix(&self) -> Option<String> {
        let fix = match self {
            Self::Remembered(_) => TooMuch::FIX,
            Self::World(_)
            | Self::Server(_)
            | Self::Launch(_)
            | Self::Group(_)
            | Self::Answer(_)
            | Self::NameTaken { .. }
            | Self::Full
            | Self::OtherPrimary { .. }
            | Self::NoPrimary { .. }
            | Self::OtherRelease { .. }
            | Self::Known { .. }
            | Self::Uncovered { .. } => return None,
            Self::HalfDone(_) | Self::HalfDetached { .. } => Self::DETACH_AGAIN,
            Self::NoSuchPort { services, port } if services.is_empty() => {
                return Some(format!("attach it: `agent attach --port {port}`"));
            }
            Self::NoSuchName { services, .. } if services.is_empty() => {
                "nothing is attached; see `agent attach --help`"
            }
            Self::NoSuchPort { services, .. } | Self::NoSuchName { services, .. } => {
                return Some(format!("attached are: {}", listed(services)));
            }
            Self::Ambiguous { .. } => "select one by its name: `agent status` lists them",
            Self::OtherName { service, .. } => {
                return Some(format!("go on with `{service}`, or detach it first"));
            }
            Self::OtherPorts { service, .. } => {
                return Some(format!("detach `{service}` first, then attach all of them together"));
            }
            Self::OtherServer { service, .. } => {
                return Some(format!("detach `{service}` first"));
            }
            Self::MadeReady { .. } => "wait for it, or take it back with `agent undo`",
            Self::StillLives { until, traced: None, .. } => until.fix(),
            Self::StillLives { until, traced: Some((pid, tracer)), .. } => {
                return Some(format!(
                    "process {pid} of it is traced by process {tracer}, which can keep it from ending: end that one, and {}",
                    until.fix()
                ));
            }
            Self::SteeringAlone { .. } => {
                "upgrade once more: the next generation can bind the public port itself"
            }
            Self::Strays { .. } => "end them first, and whoever starts them again",
            Self::Deaf { .. } | Self::DeafSince { .. } => {
                "`agent status` shows who listens; upgrade to a version that works"
            }
            Self::Stopped { pids, .. } => {
                let pids: Vec<_> = pids.iter().map(ToString::to_string).collect();
                return Some(format!("`kill -CONT {}`, and again", pids.join(" ")));
            }
            Self::Unswitched { .. } => "it is tried again until it works: see `agent status`",
            Self::Multipath => {
                "let the agent launch it (`-- command…`), or start it with Multipath TCP off (Go: GODEBUG=multipathtcp=0)"
            }
            Self::WhichPort { .. } => {
                "name one port with `--listen`; a service of several ports needs a server that listens on the same ones"
            }
        };
        Some(fix.to_owned())
    }
}

impl Until {
    const fn fix(self) -> &'static str {
        match self {
            Self::Settled => {
                "the new generation has to prove itself first (`agent status` says for how long): wait, or take it back with \
                 `agent undo`"
            }
            Self::Kept => "it is kept to fall back to (`--keep-old`): wait until that is over",
            Self::Drained => "wait until it has drained (`agent status`)",
        }
    }
}

#[cfg(test)]
mod tests {
    use agent_terms::GenerationNumber;

    use super::*;
    use crate::host::process::Pid;

    fn fix(error: &RequestError) -> String {
        error.fix().unwrap()
    }

    #[test]
    fn who_names_no_service_is_told_of_those_that_there_are() {
        let port = |services| fix(&RequestError::NoSuchPort { port: 80, services });
        let name = |services| fix(&RequestError::NoSuchName { name: "web".to_owned(), services });
        assert_eq!(port(Vec::new()), "attach it: `agent attach --port 80`");
        assert!(name(Vec::new()).starts_with("nothing is attached"));
        let known = vec!["api".parse().unwrap(), "db".parse().unwrap()];
        assert_eq!(port(known.clone()), "attached are: api, db");
        assert_eq!(name(known), "attached are: api, db");
    }

    #[test]
    fn who_keeps_a_generation_from_ending_is_named() {
        let lives = |traced| RequestError::StillLives {
            generation: GenerationNumber(1),
            open: 0,
            until: Until::Drained,
            traced,
        };
        assert_eq!(fix(&lives(None)), "wait until it has drained (`agent status`)");
        let pid = |number| Pid::new(number).unwrap();
        let traced = fix(&lives(Some((pid(7), pid(8)))));
        assert!(traced.starts_with("process 7 of it is traced by process 8"), "{traced}");
    }
}
