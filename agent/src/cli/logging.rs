//! The log: to the standard error, so that answers stay apart.

use std::io::{self, IsTerminal, Write};

use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use super::{
    arguments::{GlobalOptions, LogFormat},
    output, words,
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
        .with_writer(|| OneLine(io::stderr()))
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

/// Writes each event as one line, whatever a server has put into it: the library escapes what steers a terminal, and leaves line ends.
struct OneLine<W>(W);

impl<W: Write> Write for OneLine<W> {
    /// One event, which the library writes as a whole.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = words::log_line(text.strip_suffix('\n').unwrap_or(&text));
        self.0.write_all(format!("{line}\n").as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn an_event_is_one_line_whatever_it_says() {
        static WRITTEN: Mutex<Vec<u8>> = Mutex::new(Vec::new());
        struct There;
        impl Write for There {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                WRITTEN.lock().unwrap().write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let subscriber = tracing_subscriber::fmt().with_writer(|| OneLine(There)).finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(service = "a\nb", "launching: x\n2026-01-01T00:00:00Z  INFO forged\r");
            tracing::info!("second");
        });
        let written = String::from_utf8(WRITTEN.lock().unwrap().clone()).unwrap();
        let lines: Vec<_> = written.lines().collect();
        assert_eq!(lines.len(), 2, "{written}");
        assert!(lines[0].contains("INFO forged"), "{written}");
    }
}
