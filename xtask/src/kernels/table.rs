//! What came out: a line for each kernel while they run, and a document at the end.

use std::{path::Path, time::Duration};

use super::{
    matrix::Row,
    outcome::{Counted, Outcome},
};

/// What came of one row.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) row: Row,
    /// What the kernel calls itself; none if there was no kernel.
    pub(super) release: Option<String>,
    pub(super) outcome: Outcome,
    pub(super) counted: Counted,
    /// From switching the machine on to its end.
    pub(super) took: Duration,
}

impl Line {
    /// As it is shown when the machine has ended.
    pub(super) fn text(&self) -> String {
        let Self { row, release, outcome, counted, took } = self;
        let text = format!("{row:24} {:34} {outcome}", release.as_deref().unwrap_or("-"));
        if release.is_none() {
            return text;
        }
        let Counted { connections, failures, .. } = counted;
        let (saved, seconds) = (saved(counted), took.as_secs());
        format!(
            "{text} · {connections} connections, {failures} failures, {saved} queued saved · {seconds} s"
        )
    }

    fn markdown(&self) -> String {
        let Self { row, release, outcome, counted, took } = self;
        let kernel = match release {
            None => format!("`{row}`"),
            Some(release) => format!("`{row}`: {release}"),
        };
        let outcome = match outcome.is_failure() {
            true => format!("**{outcome}**"),
            false => outcome.to_string(),
        };
        if release.is_none() {
            return format!("| {kernel} | {outcome} | – | – | – | – |\n");
        }
        let Counted { connections, failures, .. } = counted;
        let (saved, seconds) = (saved(counted), took.as_secs());
        format!("| {kernel} | {outcome} | {connections} | {failures} | {saved} | {seconds} |\n")
    }
}

/// Where the scenario did not get so far, none were there to be saved.
fn saved(counted: &Counted) -> String {
    match counted.queued {
        0 => "–".to_owned(),
        queued => format!("{} of {queued}", counted.saved),
    }
}

/// The whole document. What it takes is a table of the agent's own, which its tests compare with the code: it stays.
pub(super) fn document(lines: &[Line], measured: &str, before: &str) -> String {
    let mut text = format!("{HEAD}\n{measured}\n\n");
    text.push_str(
        "| kernel | result | connections | failures | queued connections saved | seconds |\n",
    );
    text.push_str("| --- | --- | ---: | ---: | ---: | ---: |\n");
    text.extend(lines.iter().map(Line::markdown));
    text.push_str(NOTES);
    let takes = before.find(TAKES).map_or("", |start| &before[start..]);
    text.push_str(takes);
    text
}

/// One sentence at the end of a run.
pub(super) fn summary(lines: &[Line], runs: &Path) -> Result<String, String> {
    let count = |of: fn(&Outcome) -> bool| lines.iter().filter(|line| of(&line.outcome)).count();
    let failed = count(Outcome::is_failure);
    let gaps = count(|outcome| matches!(outcome, Outcome::Gap(_)));
    let kept = lines.len() - failed - gaps;
    let text = format!("{kept} kernels as they should be, {failed} failed, {gaps} gaps");
    match failed {
        0 => Ok(text),
        _ => Err(format!("{text}; what they told is below `{}`", runs.display())),
    }
}

const HEAD: &str = "\
# On which kernels

```sh
cargo xtask kernels                  # all of these; writes this file
cargo xtask kernels trixie:6.12+rt   # SUITE[:SERIES][+CONFIGURATION]; without a series the newest one
cargo xtask kernels --quick          # the oldest one that is served, and the newest one
```

Each row is a virtual machine with a kernel of Debian and nothing else in it but a static build of the agent, an HTTP
server and clients. It needs no hardware for virtual machines, and `arm64` is the same on the other architecture.
The server answers with the number of its version. Throughout, clients make 50 new connections per second
and keep six, by IPv4 and, where it exists, IPv6:

1. `doctor`, `attach`, five upgrades, a version that ends at its start, one more upgrade and `undo`.
2. The agent is killed and started again, upgrades once more, and is replaced (`daemon --replace`).
3. Without other clients: the server is stopped, eight connections bring a request each, and the server is killed.
   They have to be answered by the version before.
4. `detach`: the server still answers, and no program, control group or file of the agent is left.

Every command has to end as it should, no client may see a failure of any kind, and the kernel's log may show no warning.
A kernel that lacks something has to be refused: `doctor` and `attach` end with 4, `attach` with one line that says why and one
that says what to do, `doctor` with a fix for each thing that is missing; they leave nothing, and the server still answers. A machine that says nothing for 130 s is called frozen, which is a failure. What cannot be
downloaded is a gap, which is no failure.
";

/// Where that part begins.
const TAKES: &str = "\n## What it takes";

const NOTES: &str = "
`rt` is PREEMPT_RT, `lockdown` is `lockdown=confidentiality`, `no-ipv6` is `ipv6.disable=1`, `cgroup-v1` has no
control groups version 2, and `no-diag` has not loaded `tcp_diag`. The kernels are the newest ones of their suite and series on that day; of those that the
archive has no modules for any more, the newest that it has.

Older ones are refused, 5.15 (Ubuntu 22.04) and RHEL 9's 5.14 among them, by what they lack and not by their number. 5.15 has no
`bpf_loop` (5.17), in which `steer` and `migrate` look for a listener, no `bpf_set_retval` (5.18), by which `refuse_multipath`
gives the error that Go falls back from, no program that sets `SO_REUSEADDR` (6.1), and its walk of sockets would wait for
ever for a lock that it holds itself (the guard of \"taking a listener over\"). Each could be had in another way: that is
not built, and Debian's archive has no such kernel to try it on. A kernel with all of it ported back is not refused.
";

#[cfg(test)]
mod tests {
    use std::{path::Path, time::Duration};

    use super::{HEAD, Line, document, summary};
    use crate::kernels::{
        matrix::{Expected, all},
        outcome::{Counted, Outcome},
    };

    fn lines() -> Vec<Line> {
        let line = |row: &str, release: Option<&str>, outcome, counted| Line {
            row: row.parse().unwrap(),
            release: release.map(str::to_owned),
            outcome,
            counted,
            took: Duration::from_millis(31_400),
        };
        let counted =
            Counted { connections: 972, failures: 0, queued: 8, saved: 8, wrong: Vec::new() };
        vec![
            line("trixie:6.12", Some("6.12.9"), Outcome::Kept(Expected::Served), counted),
            line(
                "sid",
                Some("7.3.4"),
                Outcome::Froze("after `booted`".to_owned()),
                Counted::default(),
            ),
            line("bookworm:6.1", None, Outcome::Gap("no network".to_owned()), Counted::default()),
        ]
    }

    #[test]
    fn the_table_has_a_row_for_each_kernel() {
        let text = document(&lines(), "Measured.", "# Old\n\nrows\n\n## What it takes\n\nmuch\n");
        assert!(
            text.ends_with("\n## What it takes\n\nmuch\n") && !text.contains("# Old"),
            "{text}"
        );
        let rows: Vec<_> = text.lines().filter(|line| line.starts_with("| `")).collect();
        assert_eq!(
            rows,
            [
                "| `trixie:6.12`: 6.12.9 | served | 972 | 0 | 8 of 8 | 31 |",
                "| `sid`: 7.3.4 | **froze: after `booted`** | 0 | 0 | – | 31 |",
                "| `bookworm:6.1` | gap: no network | – | – | – | – |",
            ]
        );
    }

    /// One that was added to the matrix has to be measured.
    #[test]
    fn the_document_has_the_rows_of_the_matrix() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/kernels.md");
        let text = std::fs::read_to_string(path).unwrap();
        let measured = text.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
        let wanted: Vec<_> = all().unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(measured.take(wanted.len()).collect::<Vec<_>>(), wanted);
        assert!(text.starts_with(HEAD), "what is said before them is another text");
    }

    #[test]
    fn a_line_is_one_line() {
        let texts: Vec<_> = lines().iter().map(Line::text).collect();
        assert!(
            texts[0].ends_with("served · 972 connections, 0 failures, 8 of 8 queued saved · 31 s"),
            "{texts:?}"
        );
        assert!(texts[2].ends_with("gap: no network"), "{texts:?}");
        assert!(texts.iter().all(|text| !text.contains('\n')));
    }

    #[test]
    fn a_gap_is_no_failure() {
        let runs = Path::new("runs");
        let lines = lines();
        let words = summary(&lines, runs).unwrap_err();
        assert_eq!(
            words,
            "1 kernels as they should be, 1 failed, 1 gaps; what they told is below `runs`"
        );
        assert!(summary(&[lines[0].clone(), lines[2].clone()], runs).is_ok());
    }
}
