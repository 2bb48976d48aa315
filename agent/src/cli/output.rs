//! What is shown: the answer on the standard output, the story on the standard error.

use std::{
    cell::Cell,
    ffi::OsString,
    io::{self, IsTerminal, Write},
};

use agent_api::{Problem, ProblemKind};
use clap::builder::styling::{AnsiColor, Style};
use serde::Serialize;

use super::{
    arguments::{ColourChoice, Format, GlobalOptions},
    report, words,
};

/// Something that a command answers with.
pub(super) trait Answer: Serialize {
    /// For people.
    fn text(&self, look: Look) -> String;

    /// What `-o jsonl` has one line for.
    fn elements(&self) -> serde_json::Result<Vec<serde_json::Value>> {
        Ok(vec![serde_json::to_value(self)?])
    }
}

/// How text for people looks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    /// With the columns that need room.
    pub(super) wide: bool,
    /// With colour.
    pub(super) colour: bool,
}

/// The two outputs.
#[derive(Debug)]
pub(super) struct Console {
    format: Format,
    out: Stream,
    err: Stream,
    reader_gone: Cell<bool>,
}

#[derive(Clone, Copy, Debug)]
struct Stream {
    terminal: bool,
    colour: bool,
}

impl Console {
    /// As the options and the environment want them.
    pub(super) fn new(options: &GlobalOptions) -> Self {
        let stream = |terminal| Stream {
            terminal,
            colour: colour(options.color, terminal, |name| std::env::var_os(name)),
        };
        Self {
            format: if options.json { Format::Json } else { options.output },
            out: stream(io::stdout().is_terminal()),
            err: stream(io::stderr().is_terminal()),
            reader_gone: Cell::new(false),
        }
    }

    /// Shows an answer in the format that was asked for.
    pub(super) fn answer(&self, answer: &impl Answer) -> Result<(), Problem> {
        match self.format {
            Format::Table | Format::Wide => self.print(&answer.text(self.look())),
            Format::Json => {
                let text =
                    serde_json::to_string_pretty(answer).map_err(|error| unwritten(&error))?;
                self.print(&format!("{text}\n"))
            }
            Format::Jsonl => {
                let elements = answer.elements().map_err(|error| unwritten(&error))?;
                elements.iter().try_for_each(|element| self.json_line(element))
            }
        }
    }

    /// Shows one of many values that come one after the other: JSON is then one line each, whichever was asked for.
    pub(super) fn one_of_many(&self, answer: &impl Answer) -> Result<(), Problem> {
        match self.format {
            Format::Table | Format::Wide => self.print(&answer.text(self.look())),
            Format::Json | Format::Jsonl => self.json_line(answer),
        }
    }

    /// Writes a value as one line of JSON.
    pub(super) fn json_line(&self, value: &impl Serialize) -> Result<(), Problem> {
        let text = serde_json::to_string(value).map_err(|error| unwritten(&error))?;
        self.print(&format!("{text}\n"))
    }

    /// Writes text as it is. A reader that is gone is no failure: what was done counts, not that it was read.
    pub(super) fn print(&self, text: &str) -> Result<(), Problem> {
        let mut out = io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.reader_gone.set(true);
                Ok(())
            }
            written => written.map_err(|error| unwritten(&error)),
        }
    }

    /// Tells a part of the story.
    pub(super) fn note(&self, text: &str) {
        tell(text);
    }

    /// Tells what deserves attention.
    pub(super) fn warn(&self, text: &str) {
        tell(&format!("{} {text}", Paint::Warning.on("warning:", self.err.colour)));
    }

    /// Tells what the agent wants people to know.
    pub(super) fn warn_of(&self, warnings: &[String]) {
        for warning in warnings {
            self.warn(&words::line(warning));
        }
    }

    /// Tells what went wrong.
    pub(super) fn problem(&self, problem: &Problem) {
        tell(report::text(problem, self.err.colour).trim_end());
    }

    /// Whether what is shown is for people.
    pub(super) fn is_for_people(&self) -> bool {
        matches!(self.format, Format::Table | Format::Wide)
    }

    /// Whether the answer goes to a terminal.
    pub(super) fn answers_to_terminal(&self) -> bool {
        self.out.terminal
    }

    /// Whether the story goes to a terminal.
    pub(super) fn tells_to_terminal(&self) -> bool {
        self.err.terminal
    }

    /// Whether nobody reads the answer any more.
    pub(super) fn reader_is_gone(&self) -> bool {
        self.reader_gone.get()
    }

    /// How answers for people look.
    pub(super) fn look(&self) -> Look {
        Look { wide: self.format == Format::Wide, colour: self.out.colour }
    }
}

fn unwritten(error: &(dyn std::error::Error + 'static)) -> Problem {
    Problem::new(ProblemKind::Failed, "cannot write the answer")
        .because(error)
        .fix("what was asked for may be done all the same: see `agent status`")
}

/// Whether there is colour, by the conventions that command lines share.
pub(super) fn colour(
    choice: ColourChoice,
    terminal: bool,
    variable: impl Fn(&str) -> Option<OsString>,
) -> bool {
    let set = |name| variable(name).filter(|value| !value.is_empty());
    match choice {
        ColourChoice::Always => true,
        ColourChoice::Never => false,
        ColourChoice::Auto if set("NO_COLOR").is_some() => false,
        ColourChoice::Auto if set("CLICOLOR_FORCE").is_some_and(|value| value != "0") => true,
        ColourChoice::Auto => terminal && set("TERM").is_none_or(|value| value != "dumb"),
    }
}

/// What colours mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Paint {
    /// What is wrong.
    Error,
    /// What may be wrong.
    Warning,
    /// What to do.
    Fix,
    /// What names the rest.
    Heading,
    /// What serves.
    Serving,
    /// What is on its way out.
    Leaving,
}

impl Paint {
    /// The text in this colour, if there is colour.
    pub(super) fn on(self, text: &str, colour: bool) -> String {
        if !colour {
            return text.to_owned();
        }
        let style = self.style();
        format!("{}{text}{}", style.render(), style.render_reset())
    }

    fn style(self) -> Style {
        match self {
            Self::Error => AnsiColor::Red.on_default().bold(),
            Self::Warning => AnsiColor::Yellow.on_default().bold(),
            Self::Fix => AnsiColor::Green.on_default().bold(),
            Self::Heading => Style::new().bold(),
            Self::Serving => AnsiColor::Green.on_default(),
            Self::Leaving => AnsiColor::Yellow.on_default(),
        }
    }
}

/// On standard error, where there may be no room, or nobody: what was done counts, not that it was told.
pub(super) fn tell(line: &str) {
    let _: io::Result<()> = io::stderr().write_all(format!("{line}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(choice: ColourChoice, terminal: bool, set: &[(&str, &str)]) -> bool {
        colour(choice, terminal, |wanted| {
            set.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value.into())
        })
    }

    #[test]
    fn colour_is_for_terminals_unless_somebody_says_otherwise() {
        use ColourChoice::{Always, Auto, Never};
        assert!(chosen(Auto, true, &[]));
        assert!(!chosen(Auto, false, &[]));
        assert!(!chosen(Auto, true, &[("NO_COLOR", "1")]));
        assert!(chosen(Auto, true, &[("NO_COLOR", "")]));
        assert!(chosen(Auto, false, &[("CLICOLOR_FORCE", "1")]));
        assert!(!chosen(Auto, false, &[("CLICOLOR_FORCE", "0")]));
        assert!(!chosen(Auto, true, &[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")]));
        assert!(!chosen(Auto, true, &[("TERM", "dumb")]));
        assert!(chosen(Always, false, &[("NO_COLOR", "1")]));
        assert!(!chosen(Never, true, &[("CLICOLOR_FORCE", "1")]));
    }
}
