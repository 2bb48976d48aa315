//! What an agent left that does not run, and whether another one can go on from it.

use super::Check;
use crate::{
    daemon::{
        examine_places,
        repair::{Leftovers, examine},
    },
    host::proc_mount,
    places::Places,
};

/// One line about all of it.
pub(super) fn check(places: &Places) -> Check {
    let name = "services";
    if examine_places(places).is_err() {
        return Check::unknown(name, "not looked for: an agent could not use these directories");
    }
    if proc_mount::examine().is_err() {
        return Check::unknown(name, "not looked for: `/proc` does not show what runs");
    }
    match examine(places) {
        Ok(Leftovers::Fine(how)) => Check::ok(name, how),
        Ok(Leftovers::Harmless(what)) => {
            let told = "is in nobody's way, and `agent doctor --repair` removes it";
            Check::ok(name, format!("nothing is attached; {what}, which {told}"))
        }
        Ok(Leftovers::Startable(what)) => {
            Check::missing(name, what, "agent daemon --background, or agent doctor --repair")
        }
        Ok(Leftovers::Stateless(what) | Leftovers::Rubbish(what)) => {
            Check::missing(name, what, "agent doctor --repair")
        }
        // An agent would not start, either.
        Err(problem) => {
            let fix = problem.fix.clone();
            let fix =
                fix.unwrap_or_else(|| "let root read it, or name other directories".to_owned());
            Check::missing(name, problem.in_full(), fix)
        }
    }
}
