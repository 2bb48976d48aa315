//! What an upgrade would do, in words.

use agent_api::{UpgradePreview, UpgradeRequest};
use agent_rollout::{DrainPolicy, Readiness, spoken};
use agent_terms::GenerationId;

use super::upgrade::Candidate;
use crate::daemon::{agent::Agent, few::few};

impl Agent {
    /// The steps of an upgrade, one line each.
    pub(in crate::daemon) fn preview(
        &self,
        generation: GenerationId,
        request: &UpgradeRequest,
        candidate: &Candidate,
    ) -> UpgradePreview {
        let service = &self.record(generation.service).service;
        let from = service.primary().map_or(service.last_generation(), |primary| primary.number());
        let to = generation.number;
        let mut steps = Vec::new();
        match candidate {
            Candidate::Launch(spec, _) => {
                let context = &spec.context;
                let arguments = spec.arguments.iter().map(crate::host::os_text::OsText::as_os_str);
                let command: Vec<_> = std::iter::once(spec.program.as_os_str())
                    .chain(arguments)
                    .map(|word| word.to_string_lossy())
                    .collect();
                steps.push(format!("create the cgroup {}", spec.cgroup.as_os_str().display()));
                steps.extend(self.carried_in_words(context));
                steps.push(format!(
                    "launch `{}` as uid {} gid {} in {}, output to {}",
                    command.join(" "),
                    context.uid,
                    context.gid,
                    context.working_directory.as_os_str().display(),
                    spec.log
                        .as_ref()
                        .map_or_else(|| "nowhere".into(), |it| it.as_os_str().to_string_lossy()),
                ));
                let endpoints: Vec<_> =
                    service.endpoints().iter().map(ToString::to_string).collect();
                steps.push(format!(
                    "wait up to {} until it {} on {}",
                    spoken(request.ready_timeout),
                    match request.ready {
                        Readiness::Listen => "listens",
                        Readiness::Accept => "accepts a connection",
                    },
                    endpoints.join(", "),
                ));
            }
            Candidate::Found(server) => {
                let pids: Vec<_> = server.pids.iter().map(ToString::to_string).collect();
                let pids = few(&pids, ", ");
                steps.push(format!("take over the listeners of the processes {pids}"));
                if request.ready == Readiness::Accept {
                    let timeout = spoken(request.ready_timeout);
                    steps.push(format!("wait up to {timeout} until it accepts a connection"));
                }
            }
        }
        steps.push(format!("give every new connection to generation {to}"));
        if !request.settle.is_zero() {
            steps.push(format!(
                "go back to generation {from} if generation {to} dies, closes a listener or accepts nothing within {}",
                spoken(request.settle)
            ));
        }
        let drain = &request.drain;
        steps.push(format!(
            "wait up to {} until generation {from}'s queues are empty",
            spoken(drain.queue_timeout)
        ));
        if !drain.keep_old.is_zero() {
            steps.push(format!(
                "keep generation {from} to fall back to until {} after the switch, unless its flows end the wait below",
                spoken(drain.keep_old)
            ));
        }
        let signal = drain.signal;
        let timeout = spoken(drain.timeout);
        steps.push(match drain.policy {
            DrainPolicy::Patient { idle: None } => {
                format!("wait up to {timeout} until generation {from} has no flow left, then send signal {signal}")
            }
            DrainPolicy::Patient { idle: Some(idle) } => format!(
                "wait up to {timeout} until generation {from} has no flow left that was active within {}, then send signal {signal}",
                spoken(idle),
            ),
            DrainPolicy::Graceful => format!("send signal {signal} to generation {from} and wait up to {timeout} until it ends"),
        });
        steps.push(format!(
            "kill generation {from} if it has not ended {} later",
            spoken(drain.stop_timeout)
        ));
        UpgradePreview { schema: agent_api::SCHEMA, from, to, steps, warnings: Vec::new() }
    }
}
