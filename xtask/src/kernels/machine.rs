//! A virtual machine that needs no hardware for it: the emulator runs every instruction by itself.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use wait_timeout::ChildExt as _;

use crate::{command, layout::Target};

/// A machine, ready to be switched on.
#[derive(Debug)]
pub(super) struct Machine<'a> {
    pub(super) target: Target,
    pub(super) kernel: &'a Path,
    pub(super) initramfs: &'a Path,
    /// For what comes out of its serial ports.
    pub(super) folder: &'a Path,
    /// Added to the kernel's command line.
    pub(super) words: Vec<String>,
}

/// How a machine ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It switched itself off, or its kernel gave up.
    Off,
    /// It told nothing for too long, or did not come to an end.
    Frozen,
}

impl Machine<'_> {
    /// Runs it to its end. One that is slow tells something from time to time, one that is frozen does not.
    ///
    /// # Errors
    ///
    /// When the emulator cannot be started.
    pub(super) fn run(&self) -> Result<End> {
        for file in [self.console(), self.output()] {
            fs::write(&file, "").with_context(|| format!("write `{}`", file.display()))?;
        }
        let complaints = self.folder.join("emulator");
        let complaints = fs::File::create(&complaints)
            .with_context(|| format!("create `{}`", complaints.display()))?;
        let mut emulator = self.emulator();
        let mut child = emulator
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(complaints)
            .spawn()
            .with_context(|| format!("start `{}`", emulator.get_program().display()))?;
        let mut silence = Silence::begin(&self.output());
        while !silence.is_too_long() {
            if child.wait_timeout(LOOK).context("wait for the emulator")?.is_some() {
                return Ok(End::Off);
            }
            silence.look();
        }
        child.kill().and_then(|()| child.wait()).context("end the emulator")?;
        Ok(End::Frozen)
    }

    /// All that the guest told.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub(super) fn told(&self) -> Result<String> {
        read(&self.output())
    }

    /// All that its kernel told.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub(super) fn kernel_told(&self) -> Result<String> {
        read(&self.console())
    }

    /// Where the kernel writes to.
    fn console(&self) -> PathBuf {
        self.folder.join("console")
    }

    /// Where the guest writes to.
    fn output(&self) -> PathBuf {
        match self.target {
            Target::X86_64 => self.folder.join("output"),
            // This machine has one port.
            Target::Aarch64 => self.console(),
        }
    }

    fn emulator(&self) -> Command {
        let (program, model, ports): (_, &[&str], _) = match self.target {
            Target::X86_64 => (
                "qemu-system-x86_64",
                // Page tables of five levels cost time in each access that is not cached. Where copying strings is said to be
                // fast the kernel does it byte by byte, for each of which the emulator takes as long as for any instruction.
                &["-machine", "q35", "-cpu", "max,la57=off,erms=off,fsrm=off"],
                vec![self.console(), self.output()],
            ),
            Target::Aarch64 => (
                "qemu-system-aarch64",
                &["-machine", "virt", "-cpu", "cortex-a57"],
                vec![self.console()],
            ),
        };
        let mut emulator = command::tied(program);
        emulator.args(model).args(ALWAYS).arg("-kernel").arg(self.kernel);
        emulator.arg("-initrd").arg(self.initramfs).arg("-append").arg(self.command_line());
        for port in ports {
            emulator.arg("-serial").arg(format!("file:{}", port.display()));
        }
        emulator
    }

    fn command_line(&self) -> String {
        let ports = match self.target {
            Target::X86_64 => "console=ttyS0 guest.output=ttyS1",
            Target::Aarch64 => "console=ttyAMA0 guest.output=ttyAMA0",
        };
        let always = [
            ports,
            "loglevel=4",
            // A kernel that gives up restarts at once, which the emulator takes for the end.
            "panic=-1",
            // All of this would only cost time.
            "mitigations=off init_on_alloc=0 random.trust_cpu=on tsc=reliable",
        ];
        let words = always.into_iter().chain(self.words.iter().map(String::as_str));
        words.collect::<Vec<_>>().join(" ")
    }
}

/// How long a machine has told nothing.
struct Silence {
    file: PathBuf,
    length: u64,
    since: Instant,
    began: Instant,
}

impl Silence {
    fn begin(file: &Path) -> Self {
        let now = Instant::now();
        Self { file: file.to_owned(), length: 0, since: now, began: now }
    }

    fn look(&mut self) {
        let length = fs::metadata(&self.file).map_or(0, |file| file.len());
        if length != self.length {
            (self.length, self.since) = (length, Instant::now());
        }
    }

    fn is_too_long(&self) -> bool {
        self.since.elapsed() > SILENCE || self.began.elapsed() > LIMIT
    }
}

fn read(file: &Path) -> Result<String> {
    let bytes = fs::read(file).with_context(|| format!("read `{}`", file.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// One processor, no devices, no window, and no second life.
const ALWAYS: [&str; 11] = [
    "-accel",
    "tcg,thread=single",
    "-smp",
    "1",
    "-m",
    "512",
    "-nodefaults",
    "-no-user-config",
    "-no-reboot",
    "-display",
    "none",
];

/// Between two looks at what a machine has told.
const LOOK: Duration = Duration::from_secs(1);
/// Longer than the guest waits for any command.
const SILENCE: Duration = Duration::from_secs(130);
/// For all that a machine does, on a host that has much else to do.
const LIMIT: Duration = Duration::from_secs(600);
