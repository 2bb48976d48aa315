//! The log: to the standard error, so that answers stay apart.

use std::io::{self, IsTerminal};

use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use super::{
    arguments::{GlobalOptions, LogFormat},
    output,
};

/// Starts it. A daemon says what it decides without being asked.
pub(super) fn start(options: &GlobalOptions, daemon: bool) {
    let filter = EnvFilter::builder()
        .with_default_directive(level(options.verbose + u8::from(daemon)).into())
        .with_env_var(LEVELS)
        .from_env_lossy();
    // aya warns of each use of a release that is no three numbers (`6.18-rc`). Nothing here is decided by one.
    let filter = match "aya::util=error".parse() {
        Ok(directive) if std::env::var_os(LEVELS).is_none() => filter.add_directive(directive),
        _ => filter,
    };
    // What cannot be written would be told on standard error, where it could not be written either: that panics.
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .log_internal_errors(false);
    match options.log_format {
        LogFormat::Json => subscriber.json().init(),
        LogFormat::Text => {
            let terminal = io::stderr().is_terminal();
            let colour = output::colour(options.color, terminal, |name| std::env::var_os(name));
            subscriber.with_ansi(colour).init();
        }
    }
}

/// Who sets this means each level.
const LEVELS: &str = "AGENT_LOG";

fn level(verbose: u8) -> LevelFilter {
    match verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        3.. => LevelFilter::TRACE,
    }
}
