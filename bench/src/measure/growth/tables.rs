//! The tables of growth.

use super::{Growth, Series, What};
use crate::measure::sample::{Sample, grouped};

impl Growth {
    /// As people read it.
    pub(in crate::measure) fn markdown(&self) -> String {
        let Self { flows, endpoints, generations } = self;
        format!(
            "\n{}\n{}\n{}{NOTES}",
            table("flows of one service", flows),
            table("ports of one service", endpoints),
            table("generations alive", generations),
        )
    }

    /// Times at each size, in milliseconds: shortest, median, longest.
    pub(in crate::measure) fn in_time(&self) -> Vec<(String, [f64; 3])> {
        let Self { flows, endpoints, generations } = self;
        let of = [
            ("flows", flows, &[What::SwitchRequest, What::SwitchAtOnce, What::StatusCommand][..]),
            ("ports", endpoints, &[What::Attach, What::Upgrade, What::Restore, What::Detach]),
            ("generations", generations, &[What::SwitchRequest, What::StatusCommand]),
        ];
        let mut rows = Vec::new();
        for (kind, series, all) in of {
            for what in all {
                for (size, sample) in
                    series.sizes.iter().zip(series.samples.get(what).into_iter().flatten())
                {
                    let label = format!("{}, {} {kind}", what.short(), grouped((*size).into()));
                    rows.push((label, [sample.minimum, sample.median, sample.maximum]));
                }
            }
        }
        rows
    }
}

/// A row for each thing that was measured, a column for each size.
fn table(of: &str, series: &Series) -> String {
    let sizes: Vec<String> = series.sizes.iter().map(|size| grouped((*size).into())).collect();
    let mut text = format!("| {of} | {} | last / first |\n", sizes.join(" | "));
    text.push_str(&format!("| --- |{} ---: |\n", " ---: |".repeat(sizes.len())));
    for (what, samples) in &series.samples {
        let cells: Vec<String> = samples.iter().map(cell).collect();
        let growth = growth(series, *what);
        text.push_str(&format!("| {} | {} | {growth} |\n", what.name(), cells.join(" | ")));
    }
    text
}

/// The median, and from where to where the values go.
fn cell(sample: &Sample) -> String {
    let show = |value| sample.unit.show(value).to_string();
    let (low, middle, high) = (show(sample.minimum), show(sample.median), show(sample.maximum));
    if low == high { middle } else { format!("{middle} ({low} to {high})") }
}

fn growth(series: &Series, what: What) -> String {
    series.growth(what).map_or("–".to_owned(), |growth| format!("{growth:.2}"))
}

/// How to read it.
const NOTES: &str = "
- Growth: median (minimum to maximum) at each size; sizes take turns, and the last column is the median at the largest size by
  that at the smallest one. One server (nginx), in a namespace with an agent of its own.
- Flows: idle connections at the generation that takes new ones, and one at another generation, which drains. While switches are
  made each of the two drains in turn. The agent's counts were those of the kernel (`sock_diag`), to a flow, at each size and after
  all had been released.
- Ports: `attach` to `detach` with an agent that runs; new connections to the last port. Start of the agent: from the start of
  the process after `kill -9`.
- Generations: all but one drain, with one flow each.
- CPU during a drain: of 3 s. Looks at many flows come less often than that, so that 0 means none came; they take at most a
  twentieth of the time.
";
