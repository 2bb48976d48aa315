//! What is shown: on a terminal with a table that moves, elsewhere in plain lines.

use std::cell::{Cell, RefCell};
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use agent_api::{GenerationView, Services};

/// The standard output.
#[derive(Debug)]
pub(super) struct Screen {
    terminal: bool,
    colour: bool,
    begun: Instant,
    /// Lines of the table that is to be drawn over.
    table: Cell<usize>,
    last: RefCell<Option<(Instant, String)>>,
}

/// What the table shows.
#[derive(Debug)]
pub(super) struct Moment<'a> {
    /// What the agent knows.
    pub(super) services: &'a Services,
    /// What the clients saw go wrong so far.
    pub(super) failures: u64,
}

impl Screen {
    pub(super) fn new() -> Self {
        let terminal = io::stdout().is_terminal();
        Self {
            terminal,
            colour: terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
            begun: Instant::now(),
            table: Cell::new(0),
            last: RefCell::new(None),
        }
    }

    pub(super) fn title(&self, text: &str) {
        self.line(&self.in_style(BOLD, text));
    }

    pub(super) fn act(&self, text: &str) {
        self.line("");
        self.line(&self.in_style(BOLD, text));
    }

    pub(super) fn text(&self, text: &str) {
        self.line(text);
    }

    pub(super) fn good(&self, text: &str) {
        self.line(&self.in_style(GREEN, text));
    }

    pub(super) fn bad(&self, text: &str) {
        self.line(&self.in_style(RED, text));
    }

    pub(super) fn error(&self, text: &str) {
        self.table.set(0);
        eprintln!("{}", self.in_style(RED, &format!("error: {text}")));
    }

    /// A command as one would type it.
    pub(super) fn command(&self, typed: &str) {
        self.line(&format!("  {} {}", self.in_style(DIM, "$"), self.in_style(BOLD, typed)));
    }

    /// What a command said.
    pub(super) fn output(&self, text: &str) {
        for line in text.lines() {
            self.line(&format!("    {line}"));
        }
    }

    /// Shows the table anew: in the place of the one before, if nothing else came in between.
    pub(super) fn moment(&self, moment: &Moment<'_>) {
        let at = self.begun.elapsed();
        if !self.terminal {
            self.plain_moment(at, moment);
            return;
        }
        let mut text = match self.table.get() {
            0 => String::new(),
            lines => format!("\x1b[{lines}A\x1b[J"),
        };
        let rows = rows(at, moment);
        self.table.set(rows.len());
        for (style, row) in rows {
            text.push_str("    ");
            text.push_str(&self.in_style(style, &row));
            text.push('\n');
        }
        print(&text);
    }

    /// Leaves the table as it is: what follows stands below it.
    pub(super) fn keep_table(&self) {
        self.table.set(0);
        self.last.replace(None);
    }

    /// One line, at most once in a second as long as only numbers change.
    fn plain_moment(&self, at: Duration, moment: &Moment<'_>) {
        let generations = moment.services.services.iter().flat_map(|service| &service.generations);
        let states: Vec<String> = generations.clone().map(heading).collect();
        let states = states.join(" ");
        let mut last = self.last.borrow_mut();
        if let Some((shown, before)) = &*last
            && *before == states
            && shown.elapsed() < PLAIN
        {
            return;
        }
        *last = Some((Instant::now(), states));
        let counts = generations.map(|it| {
            format!("{}, {} new, {} open", heading(it), it.new_connections, it.open_flows)
        });
        let counts: Vec<String> = counts.collect();
        print(&format!(
            "    {:5.1} s  {} | {} failed\n",
            at.as_secs_f64(),
            counts.join(" | "),
            moment.failures
        ));
    }

    fn line(&self, text: &str) {
        self.keep_table();
        print(&format!("{text}\n"));
    }

    fn in_style(&self, style: &str, text: &str) -> String {
        if self.colour && !style.is_empty() {
            format!("{style}{text}{RESET}")
        } else {
            text.to_owned()
        }
    }
}

fn rows(at: Duration, moment: &Moment<'_>) -> Vec<(&'static str, String)> {
    let head = format!(
        "{:>8}  {:>6}  {:<10}  {:>8}  {:>6}  {:>7}",
        "TIME", "GEN", "STATE", "NEW", "OPEN", "FAILED"
    );
    let mut rows = vec![(DIM, head)];
    let generations = moment.services.services.iter().flat_map(|service| &service.generations);
    for (index, generation) in generations.enumerate() {
        let (time, failures) = match index {
            0 => (format!("{:.1} s", at.as_secs_f64()), moment.failures.to_string()),
            _ => (String::new(), String::new()),
        };
        let (mark, style) = match generation.takes_new_connections {
            true => ("▶ ", GREEN),
            false => ("", YELLOW),
        };
        let style = if moment.failures > 0 { RED } else { style };
        let row = format!(
            "{time:>8}  {:>6}  {:<10}  {:>8}  {:>6}  {failures:>7}",
            format!("{mark}{}", generation.number),
            state(generation),
            generation.new_connections,
            generation.open_flows,
        );
        rows.push((style, row));
    }
    rows
}

fn heading(generation: &GenerationView) -> String {
    let mark = if generation.takes_new_connections { "▶ " } else { "" };
    format!("{mark}generation {} {}", generation.number, state(generation))
}

/// As it is written in the agent's answers.
fn state(generation: &GenerationView) -> String {
    format!("{:?}", generation.state).to_lowercase()
}

fn print(text: &str) {
    let mut out = io::stdout().lock();
    // Nobody is left to tell when the reader is gone; the exit code still says how it went.
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).ok();
}

const PLAIN: Duration = Duration::from_secs(1);
const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const RED: &str = "\x1b[31m";
const RESET: &str = "\x1b[0m";
