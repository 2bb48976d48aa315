//! `cargo xtask kernels`: the agent on kernels other than this machine's, each in a virtual machine.
//!
//! - [`matrix`]: which kernels, how each machine is set up, and what is expected there
//! - [`choice`] and [`version`]: the newest kernel of a suite
//! - [`archive`]: fetching it, or having fetched it
//! - [`initramfs`] and [`machine`]: the machine
//! - [`outcome`]: what the guest told
//! - [`table`]: what is shown of it
//!
//! What happens inside is `tests/src/guest`. No machine needs anything of another one or of this machine's kernel, and
//! nothing outside of `target/` is touched but `docs/kernels.md`, which a run of all rows writes.

mod archive;
mod choice;
mod initramfs;
mod machine;
mod matrix;
mod outcome;
mod table;
mod version;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Error, Result, ensure};

pub(crate) use self::matrix::Row;
use self::{
    archive::{Archive, Gap, Kernel},
    initramfs::Contents,
    machine::{End, Machine},
    matrix::Expected,
    outcome::{Counted, Outcome},
    table::Line,
};
use crate::{
    build::{self, Build},
    command,
    layout::{self, Target},
    setup,
};

/// Tries these kernels, or all if none is named, and writes the document then.
///
/// # Errors
///
/// When a kernel did not do as expected, when one of those that are named was not tried, and when something that is needed cannot be installed or built.
pub(crate) fn run(root: &Path, rows: &[Row]) -> Result<()> {
    if !rows.is_empty() {
        let lines = try_all(root, rows)?;
        summarise(root, &lines)?;
        // Of all kernels one may be missing; one that was asked for was meant.
        let tried = |line: &Line| !matches!(line.outcome, Outcome::Gap(_));
        ensure!(lines.iter().all(tried), "not every kernel that was named was tried");
        return Ok(());
    }
    let began = Instant::now();
    let lines = try_all(root, &matrix::all()?)?;
    let document = root.join("docs/kernels.md");
    let before =
        fs::read_to_string(&document).with_context(|| format!("read `{}`", document.display()))?;
    let text = table::document(&lines, &measured(began.elapsed())?, &before);
    fs::write(&document, text).with_context(|| format!("write `{}`", document.display()))?;
    summarise(root, &lines)
}

/// Tries the oldest kernel that is served and the newest one.
///
/// # Errors
///
/// As [`run`].
pub(crate) fn quick(root: &Path) -> Result<()> {
    try_all(root, &matrix::quick()?).and_then(|lines| summarise(root, &lines))
}

fn summarise(root: &Path, lines: &[Line]) -> Result<()> {
    let words = table::summary(lines, &runs(root)).map_err(Error::msg)?;
    println!("{words}");
    Ok(())
}

/// When, with what and how it was measured, in a sentence.
fn measured(took: Duration) -> Result<String> {
    let day = command::output(Command::new("date").args(["--utc", "+%F"]))?;
    let emulator = command::output(Command::new("qemu-system-x86_64").arg("--version"))?;
    let emulator = emulator.lines().next().unwrap_or_default().replace(" emulator version", "");
    Ok(format!(
        "Measured on {} with agent {}, {emulator}, {} machines at a time: {} s in all, with whatever was built and downloaded.",
        day.trim(),
        env!("CARGO_PKG_VERSION"),
        machines_at_a_time(),
        took.as_secs()
    ))
}

/// Tries every row, and tells of each when it is over.
fn try_all(root: &Path, rows: &[Row]) -> Result<Vec<Line>> {
    let emulators = setup::emulators().map_err(|error| {
        Gap(format!("there is no emulator, and none can be installed: {error:#}"))
    });
    let mut builds = BTreeMap::new();
    for target in rows.iter().map(|row| row.configuration.target()) {
        if !builds.contains_key(target.triple()) {
            builds.insert(target.triple(), build_for(root, target)?);
        }
    }
    fs::create_dir_all(layout::kernels(root)).context("create a folder for the kernels")?;
    let bench = Bench { root, emulators, archive: Archive::new(root, rows), builds };
    let next = AtomicUsize::new(0);
    let lines = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        for _ in 0..machines_at_a_time() {
            scope.spawn(|| {
                while let Some((number, row)) = take(&next, rows) {
                    let line = bench.line(row);
                    println!("{}", line.text());
                    lines.lock().unwrap_or_else(|broken| broken.into_inner()).insert(number, line);
                }
            });
        }
    });
    let lines = lines.into_inner().unwrap_or_else(|broken| broken.into_inner());
    Ok(lines.into_values().collect())
}

/// That the compiler cannot be had for a target says nothing of the agent; that the agent cannot be compiled does.
fn build_for(root: &Path, target: Target) -> Result<Result<Build, Gap>> {
    match setup::for_target(root, target) {
        Err(error) => Ok(Err(Gap(format!("no compiler for it: {error:#}")))),
        Ok(()) => build::for_target(root, target).map(Ok),
    }
}

fn take<'a>(next: &AtomicUsize, rows: &'a [Row]) -> Option<(usize, &'a Row)> {
    let number = next.fetch_add(1, Ordering::Relaxed);
    Some((number, rows.get(number)?))
}

/// A machine uses one processor and is quick only if it has it for itself.
fn machines_at_a_time() -> usize {
    thread::available_parallelism().map_or(1, usize::from).min(MOST)
}

/// All that the rows share.
struct Bench<'a> {
    root: &'a Path,
    emulators: Result<(), Gap>,
    archive: Archive,
    /// By the name of the target.
    builds: BTreeMap<&'static str, Result<Build, Gap>>,
}

impl Bench<'_> {
    /// Tries one row. Whatever goes wrong is what came of it: the others go on.
    fn line(&self, row: &Row) -> Line {
        let (release, tried) = match self.needed(row) {
            Err(Gap(words)) => (None, Tried::without(Outcome::Gap(words))),
            Ok((kernel, build)) => {
                let tried = self
                    .boot(row, &kernel, build)
                    .unwrap_or_else(|error| Tried::without(Outcome::Failed(format!("{error:#}"))));
                (Some(kernel.release), tried)
            }
        };
        let Tried { outcome, counted, took } = tried;
        Line { row: row.clone(), release, outcome, counted, took }
    }

    fn needed(&self, row: &Row) -> Result<(Kernel, &Build), Gap> {
        self.emulators.clone()?;
        let build = self.builds[row.configuration.target().triple()].as_ref();
        let build = build.map_err(Clone::clone)?;
        Ok((self.archive.kernel(row)?, build))
    }

    fn boot(&self, row: &Row, kernel: &Kernel, build: &Build) -> Result<Tried> {
        let folder = runs(self.root).join(row.folder());
        fs::create_dir_all(&folder).with_context(|| format!("create `{}`", folder.display()))?;
        let initramfs = folder.join("initramfs");
        pack(build, kernel, &initramfs)?;
        let machine = Machine {
            target: row.configuration.target(),
            kernel: &kernel.image(),
            initramfs: &initramfs,
            folder: &folder,
            words: words(row),
        };
        let began = Instant::now();
        let end = machine.run();
        let took = began.elapsed();
        // Large, and made anew each time.
        fs::remove_file(&initramfs).with_context(|| format!("remove `{}`", initramfs.display()))?;
        let [told, console] = [machine.told()?, machine.kernel_told()?];
        let (outcome, counted) = match end? {
            End::Off => outcome::judge(row.expected(), &told, &console),
            End::Frozen => (outcome::frozen(took, &told, &console), Counted::default()),
        };
        Ok(Tried { outcome, counted, took })
    }
}

/// What came of a machine.
struct Tried {
    outcome: Outcome,
    counted: Counted,
    took: Duration,
}

impl Tried {
    /// There was none.
    fn without(outcome: Outcome) -> Self {
        Self { outcome, counted: Counted::default(), took: Duration::ZERO }
    }
}

fn pack(build: &Build, kernel: &Kernel, to: &Path) -> Result<()> {
    let Build { agent } = build;
    let guest = agent.with_file_name("guest");
    initramfs::pack(&Contents { guest: &guest, agent, modules: kernel.modules() }, to)
}

/// What is added to the kernel's command line.
fn words(row: &Row) -> Vec<String> {
    let mut words: Vec<String> =
        row.configuration.boot_words().iter().map(|&word| word.to_owned()).collect();
    if row.expected() == Expected::Refused {
        words.push("guest.expected=refused".to_owned());
    }
    words
}

/// Where each machine has a folder.
fn runs(root: &Path) -> PathBuf {
    layout::kernels(root).join("runs")
}

/// More would not be quicker for so few rows.
const MOST: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    /// What keeps a row from being tried, with a compiler or an emulator that cannot be had.
    fn lines(emulators: Result<(), Gap>, build: Result<Build, Gap>) -> Vec<Line> {
        let folder = tempfile::tempdir().unwrap();
        let rows = matrix::quick().unwrap();
        let target = rows[0].configuration.target().triple();
        let bench = Bench {
            root: folder.path(),
            emulators,
            archive: Archive::new(folder.path(), &rows),
            builds: BTreeMap::from([(target, build)]),
        };
        rows.iter().map(|row| bench.line(row)).collect()
    }

    #[test]
    fn without_an_emulator_or_a_compiler_every_row_is_a_gap_and_the_run_no_failure() {
        let gap = |words: &str| Gap(words.to_owned());
        for (words, lines) in [
            ("no emulator", lines(Err(gap("no emulator")), Err(gap("not asked for")))),
            ("no compiler", lines(Ok(()), Err(gap("no compiler")))),
        ] {
            for line in &lines {
                assert!(line.text().ends_with(&format!("gap: {words}")), "{}", line.text());
            }
            let summary = table::summary(&lines, Path::new("runs")).unwrap();
            assert_eq!(summary, "0 kernels as they should be, 0 failed, 2 gaps");
        }
    }
}
