//! What to do about a server that is not found, or not taken charge of.

use super::{also::joined, error::IdentifyError};
use crate::{
    daemon::few::MOST,
    host::{process::Pid, servers::Obstacle},
};

impl IdentifyError {
    /// What to do about it, where that is known.
    pub(in crate::daemon) fn fix(&self) -> Option<String> {
        let fix = match self {
            Self::World(_) | Self::Unseen(_) | Self::Name(_) | Self::BoundToInterface { .. } => {
                return None;
            }
            Self::NothingListens { near, .. } if near.is_empty() => {
                "nothing listens in this network namespace: start the server first"
            }
            Self::NothingListens { near, .. } => {
                let near: Vec<_> = near.iter().map(|(at, port)| format!("{at}:{port}")).collect();
                return Some(format!("start the server first; these listen: {}", near.join(", ")));
            }
            Self::NothingNewListens { .. } => {
                "start the new version first, on a port of its own; `ss -ltnp` says who listens"
            }
            Self::LivesElsewhere { .. } => {
                "run the agent in that namespace, with its own --runtime-dir, --pin-dir and --cgroup"
            }
            Self::NamedElsewhere { .. } => {
                "run an agent of its own there, with its own --runtime-dir, --pin-dir and --cgroup"
            }
            Self::NoProcess { servers, .. } if servers.is_empty() => {
                "`ss -ltnp` says which processes listen"
            }
            Self::NoProcess { servers, .. } | Self::HoldsNothing { servers, .. } => {
                return Some(format!("these do: {}", servers.join(", ")));
            }
            Self::NoServer { .. } => {
                "start the new version first, and name its process (`ss -ltnp` lists who listens)"
            }
            Self::NotSeenToListen { .. } => "run with CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH",
            Self::NobodyHolds { refused: refused @ 1.., .. } => {
                return Some(format!(
                    "{refused} processes may not be looked at: run with CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH"
                ));
            }
            Self::NobodyHolds { sees_all: true, .. } => {
                "all processes of this machine were looked at, and rings of io_uring too: the kernel itself has it (as for NFS), a ring \
                 without a descriptor, or a message under way in a Unix socket; start the server so that its process keeps one"
            }
            Self::NobodyHolds { .. } => {
                "its process may be outside of the PID namespace of this agent: then run the agent where it can be seen, as on the host; \
                 or the kernel has it, or a message under way in a Unix socket: then start the server \
                 so that its process keeps one"
            }
            Self::JustEnded => {
                "start it again: what a next one would be given can no longer be seen"
            }
            Self::Obstacle { pid, obstacle, .. } => return Some(around(*pid, *obstacle)),
            Self::Doubt { likely: Some(pid), .. } => {
                return Some(format!(
                    "say which one with `--pid`, as in `--pid {pid}`: the others are neither copied nor told to end"
                ));
            }
            Self::Doubt { likely: None, .. } | Self::Several { .. } => "say which one with `--pid`",
            Self::Crowd { .. } => {
                "have the server pass its listener to fewer of the programs that it starts"
            }
            Self::Shared { service, ports, .. } => {
                return Some(format!(
                    "to have all of its ports switched at the same instant: `agent detach {service}`, then attach them together \
                     (`--port {}`)",
                    joined(ports)
                ));
            }
            Self::OtherAgent { pins: Some(pins), .. } => {
                return Some(format!(
                    "detach it there (`agent --pin-dir {} …`, with the --runtime-dir that belongs to it), or leave the port to \
                     that agent",
                    pins.display()
                ));
            }
            Self::OtherAgent { pins: None, .. } => {
                "detach it there, or leave the port to that agent"
            }
            Self::OwnProgram => "have the server leave that to the kernel, and attach again",
            Self::LateProgram => {
                "have the server leave that to the kernel, and start it anew; or detach it, which leaves its program where it is"
            }
            Self::Supervisor { .. } => {
                "run the server without it; say `--also` if all of it may end"
            }
            Self::TakesAlong { service, ports, .. } if ports.len() <= MOST => {
                return Some(format!(
                    "say `--also` if that may end; or have it switched too, if the new generation serves it: `agent detach {service}`, \
                     then `agent attach --name {service} --port {}`",
                    joined(ports)
                ));
            }
            Self::TakesAlong { .. } => "say `--also` if that may end",
            Self::StartedAgain(restarter) => return Some(restarter.way_out()),
            Self::EndsTogether { is_ours, .. } => {
                const ELSEWHERE: &str = "start the new version in a container of its own, and take it in with `--pid` or `--listen`";
                match is_ours {
                    true => ELSEWHERE,
                    false => {
                        return Some(format!(
                            "{ELSEWHERE}; or launch it outside with `--namespaces agent`"
                        ));
                    }
                }
            }
        };
        Some(fix.to_owned())
    }
}

/// What to do about what speaks against a process.
fn around(pid: Pid, obstacle: Obstacle) -> String {
    match obstacle {
        Obstacle::First => {
            "if it keeps the listener for a service (socket activation), start that service, and name its process with \
             `--pid`; if it is the server itself, in a container, say `--pid 1`"
                .to_owned()
        }
        Obstacle::Stranger { owner } => {
            format!("name a process of uid {owner} with `--pid`, or let root make the listener")
        }
        Obstacle::Supervisor(name) => format!(
            "let the server listen by itself (with pm2: fork mode), or run it without {name}; if {name} runs nothing \
             else, say `--pid {pid}`"
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use agent_terms::LocalAddress;

    use super::*;

    fn fix(error: &IdentifyError) -> String {
        error.fix().unwrap()
    }

    #[test]
    fn who_asks_for_a_port_in_vain_is_told_of_those_that_there_are() {
        let nothing = |near| IdentifyError::NothingListens { port: 80, address: None, near };
        assert!(fix(&nothing(Vec::new())).ends_with("start the server first"));
        let near = vec![(LocalAddress::Ipv4(Ipv4Addr::LOCALHOST), 81)];
        assert!(fix(&nothing(near)).ends_with("these listen: 127.0.0.1:81"));
        let one = IdentifyError::NoProcess { pid: 7, servers: vec!["8 (nc)".to_owned()] };
        assert_eq!(fix(&one), "these do: 8 (nc)");
        let none = IdentifyError::NoProcess { pid: 7, servers: Vec::new() };
        assert!(fix(&none).contains("ss -ltnp"));
    }

    #[test]
    fn nobody_is_told_to_attach_more_ports_together_than_fit_into_a_line() {
        let takes = |count: u16| IdentifyError::TakesAlong {
            service: "web".parse().unwrap(),
            others: String::new(),
            ports: (80..80 + count).collect(),
        };
        assert!(fix(&takes(2)).ends_with("`agent attach --name web --port 80,81`"));
        assert_eq!(fix(&takes(100)), "say `--also` if that may end");
    }

    #[test]
    fn a_listener_without_a_process_may_be_out_of_sight() {
        let nobody = |refused, sees_all| {
            fix(&IdentifyError::NobodyHolds { ports: vec![80], refused, sees_all })
        };
        assert!(nobody(3, true).starts_with("3 processes may not be looked at"));
        assert!(nobody(0, true).starts_with("all processes of this machine"));
        assert!(nobody(0, false).starts_with("its process may be outside"));
    }
}
