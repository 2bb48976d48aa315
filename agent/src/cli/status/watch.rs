//! `agent status --watch`.

use std::time::Duration;

use agent_api::{
    EventView, ExitCode, Problem, Selected, Services,
    client::{ClientError, Stream},
};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::look;
use crate::cli::{
    Context,
    output::{Answer, Console},
};

/// Counters and ages change without an event.
const EACH: Duration = Duration::from_secs(1);
/// Between the events of a burst.
const BURST: Duration = Duration::from_millis(50);

/// Shows each change until interrupted.
pub(super) async fn run(
    context: &Context,
    selected: Option<&Selected>,
) -> Result<ExitCode, Problem> {
    let mut ticks = interval(EACH);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut events = Some(context.client.follow_events().await?);
    let mut screen = Screen::default();
    loop {
        let services = look(&context.client, selected).await?;
        screen.show(&context.console, &services)?;
        if context.console.reader_is_gone() {
            return Ok(ExitCode::Done);
        }
        tokio::select! {
            _ = ticks.tick() => {}
            event = next(&mut events) => match event {
                Ok(Some(_)) => quiet(&mut events).await,
                // Without events the picture is a second late, no more; an agent that went away is told of by `look`.
                Ok(None) | Err(_) => events = None,
            },
        }
    }
}

/// Waits until no more events come, but not for long: they come in bursts, the first one of what was before.
async fn quiet(events: &mut Option<Stream<EventView>>) {
    let burst = async { while let Ok(Ok(Some(_))) = timeout(BURST, next(events)).await {} };
    timeout(EACH, burst).await.ok();
}

async fn next(events: &mut Option<Stream<EventView>>) -> Result<Option<EventView>, ClientError> {
    match events {
        Some(events) => events.next().await,
        None => std::future::pending().await,
    }
}

/// What was shown last.
#[derive(Debug, Default)]
struct Screen {
    last: Option<Services>,
}

impl Screen {
    fn show(&mut self, console: &Console, services: &Services) -> Result<(), Problem> {
        if console.answers_to_terminal() && console.is_for_people() {
            return console.print(&redrawn(&services.text(console.look())));
        }
        let still = without_times(services.clone());
        if self.last.as_ref() != Some(&still) {
            console.json_line(services)?;
            self.last = Some(still);
        }
        Ok(())
    }
}

/// The text in place of what was there: line by line, so that nothing flickers.
fn redrawn(text: &str) -> String {
    const HOME: &str = "\x1b[H";
    const REST_OF_LINE: &str = "\x1b[K";
    const REST_OF_SCREEN: &str = "\x1b[J";
    let lines: String = text.lines().map(|line| format!("{line}{REST_OF_LINE}\n")).collect();
    format!("{HOME}{lines}{REST_OF_SCREEN}")
}

/// The same without what changes by itself.
fn without_times(mut services: Services) -> Services {
    for service in &mut services.services {
        for generation in &mut service.generations {
            generation.age = Duration::ZERO;
            generation.deadline_in = None;
        }
        for rollout in &mut service.rollouts {
            rollout.idle = None;
            rollout.deadline_in = None;
        }
    }
    services
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::samples;

    #[test]
    fn time_that_passes_is_no_change_and_a_connection_is() {
        let before = samples::services();
        let mut after = before.clone();
        for generation in after.services.iter_mut().flat_map(|service| &mut service.generations) {
            generation.age += EACH;
            generation.deadline_in = generation.deadline_in.map(|left| left - EACH);
        }
        assert_eq!(without_times(before.clone()), without_times(after.clone()));
        after.services[0].generations[0].open_flows += 1;
        assert_ne!(without_times(before), without_times(after));
    }

    #[test]
    fn a_picture_covers_the_one_before() {
        assert_eq!(redrawn("a\nb\n"), "\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J");
    }
}
