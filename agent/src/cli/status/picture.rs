//! A service and its generations, as they are shown to people.

use agent_api::{
    GenerationState, GenerationView, ListenerView, ServiceState, ServiceView, Serving,
};
use agent_rollout::{Outcome, PortHold};

use crate::cli::{
    conclusion,
    output::{Look, Paint},
    serving,
    table::{Side, Table},
    words,
};

/// The service on a line, its generations in a table, and what needs saying.
pub(in crate::cli) fn service(service: &ServiceView, look: Look) -> String {
    let mut text = heading(service, look);
    text.push_str(&generations(service, look));
    for generation in &service.generations {
        if let Some(note) = &generation.note {
            let number = generation.number;
            text.push_str(&format!("note: generation {number}: {}\n", words::line(note)));
        }
    }
    for rollout in &service.rollouts {
        text.push_str(&format!("rollout {}: {}\n", rollout.id, conclusion::summary(rollout)));
        if look.wide && rollout.waited > 0 {
            let waited = words::count(rollout.waited, "connection", "connections");
            text.push_str(&format!("  waited for {waited} that had not been accepted\n"));
        }
    }
    if let Some(setback) = &service.setback {
        text.push_str(&format!("rollout {}: {}", setback.id, conclusion::summary(setback)));
        let why = setback.outcome().and_then(Outcome::reason);
        text.push_str(&why.map(|why| format!(" ({})", words::line(why))).unwrap_or_default());
        text.push('\n');
    }
    for warning in warnings(service) {
        text.push_str(&format!("{} {warning}\n", Paint::Warning.on("warning:", look.colour)));
    }
    text
}

fn heading(service: &ServiceView, look: Look) -> String {
    let endpoints: Vec<String> = service.endpoints.iter().map(ToString::to_string).collect();
    let (state, paint) = match service.state {
        ServiceState::Steady => ("steady", Paint::Serving),
        ServiceState::RollingOut => ("rolling out", Paint::Leaving),
        ServiceState::Degraded => ("degraded", Paint::Error),
    };
    format!(
        "{}  {}  {}\n",
        Paint::Heading.on(service.name.as_str(), look.colour),
        endpoints.join(", "),
        paint.on(state, look.colour),
    )
}

const COLUMNS: [(&str, Side); 14] = [
    ("", Side::Left),
    ("GEN", Side::Right),
    ("STATE", Side::Left),
    ("RELEASE", Side::Left),
    ("PIDS", Side::Left),
    ("LISTENERS", Side::Left),
    ("PORT", Side::Left),
    ("NEW", Side::Right),
    ("OPEN", Side::Right),
    ("AGE", Side::Left),
    ("DEADLINE", Side::Left),
    ("RESET", Side::Right),
    ("LOG", Side::Left),
    ("COMMAND", Side::Left),
];
/// How many of them fit anywhere.
const NARROW: usize = 11;
/// This one is there only where a deploy names its releases.
const RELEASE: usize = 3;

fn generations(service: &ServiceView, look: Look) -> String {
    let shown = if look.wide { COLUMNS.len() } else { NARROW };
    let named = service.generations.iter().any(|it| it.release.is_some());
    let is_shown = |column: &usize| *column < shown && (named || *column != RELEASE);
    let columns: Vec<_> = (0..COLUMNS.len()).filter(is_shown).collect();
    let mut table = Table::new(&columns.iter().map(|it| COLUMNS[*it]).collect::<Vec<_>>());
    for generation in &service.generations {
        let cells = cells(generation, look);
        table.row(columns.iter().map(|it| cells[*it].clone()), paint(generation));
    }
    table.render(look.colour)
}

fn cells(generation: &GenerationView, look: Look) -> [String; COLUMNS.len()] {
    let dash = || "-".to_owned();
    [
        if generation.takes_new_connections { "▶" } else { "" }.to_owned(),
        generation.number.to_string(),
        generation.state.name().to_owned(),
        generation.release.as_ref().map_or_else(dash, ToString::to_string),
        pids(&generation.pids, look),
        listeners(&generation.listeners),
        hold(generation.hold).to_owned(),
        generation.new_connections.to_string(),
        generation.open_flows.to_string(),
        words::span(generation.age),
        generation.deadline_in.map_or_else(dash, words::span),
        generation.reset_flows.to_string(),
        generation.log.as_ref().map_or_else(dash, |log| log.display().to_string()),
        generation.command.join(" "),
    ]
}

const fn hold(hold: PortHold) -> &'static str {
    match hold {
        PortHold::Shared => "shared",
        PortHold::Moved => "moved",
        PortHold::Plain => "plain",
        PortHold::Unbound => "-",
    }
}

const fn paint(generation: &GenerationView) -> Option<Paint> {
    match generation.state {
        GenerationState::Dead => Some(Paint::Error),
        _ if generation.takes_new_connections => Some(Paint::Serving),
        GenerationState::Starting | GenerationState::Primary | GenerationState::Standby => None,
        GenerationState::Clearing
        | GenerationState::Draining
        | GenerationState::Parting
        | GenerationState::Finishing
        | GenerationState::Stopping => Some(Paint::Leaving),
    }
}

/// The first ones, which are the root ones; servers with hundreds of workers exist.
fn pids(pids: &[i32], look: Look) -> String {
    const FIRST: usize = 3;
    let shown = if look.wide { pids.len() } else { FIRST };
    let mut texts: Vec<String> = pids.iter().take(shown).map(ToString::to_string).collect();
    if pids.len() > shown {
        texts.push(format!("+{}", pids.len() - shown));
    }
    if texts.is_empty() { "-".to_owned() } else { texts.join(",") }
}

/// Each address once, with how many listeners have it.
fn listeners(listeners: &[ListenerView]) -> String {
    let mut counted: Vec<(std::net::SocketAddr, usize)> = Vec::new();
    for listener in listeners {
        match counted.iter_mut().find(|(bound, _)| *bound == listener.bound) {
            Some((_, count)) => *count += 1,
            None => counted.push((listener.bound, 1)),
        }
    }
    let texts: Vec<String> = counted
        .into_iter()
        .map(
            |(bound, count)| {
                if count == 1 { bound.to_string() } else { format!("{bound}×{count}") }
            },
        )
        .collect();
    if texts.is_empty() { "-".to_owned() } else { texts.join(",") }
}

/// What went otherwise than meant.
fn warnings(service: &ServiceView) -> Vec<String> {
    let new = |count| words::count(count, "new connection", "new connections");
    let mut warnings: Vec<_> = service.troubles.iter().map(|it| words::line(it)).collect();
    warnings.extend(serving::waiting(service));
    if service.state == ServiceState::Degraded && warnings.is_empty() {
        warnings.push(serving::complaint(service));
    }
    // Where no generation serves they do, which is said already.
    if matches!(service.serving, Some(Serving::Generation { .. })) {
        warnings.extend(serving::beside(service));
    }
    warnings.extend(service.warnings.iter().map(|it| words::line(it)));
    if service.fallback > 0 {
        let count = new(service.fallback);
        warnings.push(format!(
            "{count} since the attach went to another generation, because the one that takes new connections had no listener for \
             them"
        ));
    }
    if service.unreached > 0 {
        warnings.push(format!(
            "{} since the attach found no generation with a listener: whoever else listened there got them, or they were refused",
            new(service.unreached)
        ));
    }
    if service.stranded > 0 {
        warnings.push(format!(
            "{} had not been accepted when their listener closed, and could not be moved",
            words::count(service.stranded, "connection", "connections")
        ));
    }
    warnings
}
