//! Who serves, in words.

use agent_api::{GenerationState, GenerationView, ServiceView, Serving, Stranger, Waiting};
use agent_rollout::PortHold;
use agent_terms::GenerationNumber;

use super::words;

/// A clause for who serves; an agent that does not say means `otherwise`.
pub(super) fn clause(serving: Option<&Serving>, otherwise: GenerationNumber) -> String {
    match serving {
        None => format!("generation {otherwise} serves"),
        Some(Serving::Generation { number }) => format!("generation {number} serves"),
        Some(Serving::Strangers { processes }) => {
            format!("{}, which is not the service's, serves", named(processes))
        }
        Some(Serving::Nobody) => "nobody serves".to_owned(),
    }
}

/// What is wrong with a service that is degraded, as far as its listeners show it.
pub(super) fn complaint(service: &ServiceView) -> String {
    match &service.serving {
        Some(Serving::Generation { number }) => format!(
            "generation {number} serves, but not all that the service promises: see `agent explain` and `agent events`"
        ),
        Some(Serving::Strangers { processes }) => {
            let way = match (processes.first(), service.endpoints.first()) {
                (Some(Stranger { other_user: Some(_), .. }), _) => {
                    ": end it, and start the server again".to_owned()
                }
                (Some(first), Some(endpoint)) => format!(
                    ": `agent upgrade --port {} --pid {}` takes it in",
                    endpoint.port, first.pid
                ),
                _ => String::new(),
            };
            let who = named(processes);
            format!("no generation serves, but {who}, which is not the service's, does{way}")
        }
        Some(Serving::Nobody) => {
            "no generation can serve: connections are refused until a server listens".to_owned()
        }
        None => "no generation can serve".to_owned(),
    }
}

/// Who else listens there, if anybody does.
pub(super) fn beside(service: &ServiceView) -> Option<String> {
    if service.beside.is_empty() {
        return None;
    }
    let who = named(&service.beside);
    let moved = service
        .generations
        .iter()
        .find(|it| it.state == GenerationState::Primary && it.hold == PortHold::Moved);
    Some(match moved {
        None => format!("others listen there too, and get no new connection: {who}"),
        Some(GenerationView { number, .. }) => format!(
            "others listen there too, and get every connection when generation {number} ends, which listens elsewhere: {who}"
        ),
    })
}

/// That connections wait for nobody, if they do.
pub(super) fn waiting(service: &ServiceView) -> Option<String> {
    let Waiting { connections, longest } = service.waiting?;
    let (verb, longest) = (if connections == 1 { "waits" } else { "wait" }, words::span(longest));
    let count = words::count(connections, "connection", "connections");
    Some(format!(
        "{count} {verb} to be accepted, for up to {longest}: the server accepts nothing, or too little"
    ))
}

fn named(processes: &[Stranger]) -> String {
    let name = |it: &Stranger| {
        let of = it.other_user.map(|user| format!(" of another user, uid {user}"));
        format!("process {} ({}){}", it.pid, words::line(&it.command), of.unwrap_or_default())
    };
    match processes {
        [] => "a process that cannot be seen from here".to_owned(),
        [only] => name(only),
        [first, others @ ..] => {
            format!("{} and {}", name(first), words::count(others.len() as u64, "other", "others"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::samples;

    #[test]
    fn refused_is_said_only_where_nothing_listens() {
        let mut service = samples::services().services.remove(1);
        let stranger = |pid| Stranger { pid, command: "haproxy -sf 7".into(), other_user: None };
        let all = [
            None,
            Some(Serving::Nobody),
            Some(Serving::Generation { number: GenerationNumber(3) }),
            Some(Serving::Strangers { processes: vec![stranger(12)] }),
            Some(Serving::Strangers { processes: vec![stranger(12), stranger(13)] }),
            Some(Serving::Strangers { processes: Vec::new() }),
        ];
        let mut lines = Vec::new();
        for serving in all {
            service.serving = serving;
            let complaint = complaint(&service);
            let refused = complaint.contains("refused");
            assert_eq!(refused, service.serving == Some(Serving::Nobody), "{complaint}");
            lines.push(clause(service.serving.as_ref(), GenerationNumber(1)));
            lines.push(complaint);
        }
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn a_stranger_of_another_user_is_not_recommended() {
        let mut service = samples::services().services.remove(1);
        let stranger =
            |other_user| Stranger { pid: 7, command: "python3 -m http.server".into(), other_user };
        service.serving = Some(Serving::Strangers { processes: vec![stranger(Some(1000))] });
        let said = complaint(&service);
        assert!(said.contains("uid 1000") && said.contains("end it"), "{said}");
        assert!(!said.contains("takes it in"), "{said}");
        service.serving = Some(Serving::Strangers { processes: vec![stranger(None)] });
        assert!(complaint(&service).contains("takes it in"));
    }
}
