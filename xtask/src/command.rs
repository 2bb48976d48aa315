//! Running other programs.
//!
//! Nothing here reads standard input: a build that asks a question would hang where nobody can answer.

use std::{
    env,
    ffi::OsStr,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use wait_timeout::ChildExt;

/// The cargo that runs us, at the top of the workspace.
///
/// It does not see what `cargo run` told us about the `xtask` package: crates whose build scripts look at those
/// variables would be built again each time somebody changes between `cargo xtask build` and `cargo build`.
pub(crate) fn cargo(root: &Path) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(describes_the_running_package) {
            command.env_remove(name);
        }
    }
    command
}

/// Runs to the end, with its output going where ours goes.
///
/// # Errors
///
/// When the program cannot be started, and when it says that it failed.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("start `{}`", shown(command)))?;
    if !status.success() {
        bail!("`{}` failed: {status}", shown(command));
    }
    Ok(())
}

/// Runs to the end and returns what it wrote to standard output.
///
/// # Errors
///
/// As [`run`], and when the output is not UTF-8.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("start `{}`", shown(command)))?;
    if !output.status.success() {
        bail!("`{}` failed: {}", shown(command), output.status);
    }
    String::from_utf8(output.stdout)
        .with_context(|| format!("read the output of `{}`", shown(command)))
}

/// As [`output`], but what the program complains of becomes part of the error: for what may fail without anybody being told.
///
/// # Errors
///
/// As [`output`].
pub(crate) fn captured(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start `{}`", shown(command)))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        let last = complaint.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("no words");
        bail!("`{}` failed: {last}", command.get_program().display());
    }
    String::from_utf8(output.stdout)
        .with_context(|| format!("read the output of `{}`", shown(command)))
}

/// Runs without output, and kills the program with all its children when it takes longer than `limit`.
///
/// # Errors
///
/// As [`run`], and when the time is over.
pub(crate) fn run_quietly_within(command: &mut Command, limit: Duration) -> Result<()> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // A group of its own, so that what the program starts ends with it.
        .process_group(0)
        .spawn()
        .with_context(|| format!("start `{}`", shown(command)))?;
    let Some(status) = child.wait_timeout(limit)? else {
        // The child has not been waited for, so its number cannot have gone to another process.
        killpg(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGKILL)?;
        child.wait()?;
        bail!("`{}` took longer than {limit:?}", shown(command));
    };
    if !status.success() {
        bail!("`{}` failed: {status}", shown(command));
    }
    Ok(())
}

/// A program that the kernel kills when the thread that started it ends, whatever ends that: nobody else would.
///
/// It becomes the program that is named, so that its number stays.
#[doc(alias = "PR_SET_PDEATHSIG")]
pub(crate) fn tied(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", program]);
    command
}

/// The command as one would type it.
fn shown(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect();
    words.join(" ")
}

fn describes_the_running_package(variable: &str) -> bool {
    ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|prefix| variable.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::Read,
        os::unix::{fs::OpenOptionsExt, process::ExitStatusExt},
        process::{Command, Stdio},
        time::{Duration, Instant},
    };

    use nix::{
        fcntl::{FcntlArg, OFlag, fcntl},
        sys::stat::Mode,
        unistd::mkfifo,
    };

    use super::{run, run_quietly_within, tied};

    #[test]
    fn what_is_tied_ends_with_who_started_it() {
        let start = || {
            let mut child = tied("sh");
            let child = child.args(["-c", "echo; exec sleep 60"]).stdout(Stdio::piped()).spawn();
            let mut child = child.unwrap();
            // It has become what it was to be.
            child.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
            child
        };
        let mut child = std::thread::spawn(start).join().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }

    #[test]
    fn a_failure_names_the_command() {
        let failure = run(Command::new("sh").args(["-c", "exit 3"])).unwrap_err();
        assert_eq!(failure.to_string(), "`sh -c exit 3` failed: exit status: 3");
    }

    #[test]
    fn the_limit_ends_children_of_the_command_too() {
        let folder = tempfile::tempdir().unwrap();
        let held = folder.path().join("held");
        mkfifo(&held, Mode::S_IRWXU).unwrap();
        let mut holders =
            File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(&held).unwrap();
        fcntl(&holders, FcntlArg::F_SETFL(OFlag::empty())).unwrap();

        let started = Instant::now();
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 60 > held & wait"]).current_dir(&folder);
        let failure = run_quietly_within(&mut command, Duration::from_millis(500)).unwrap_err();
        assert!(failure.to_string().contains("took longer than 500ms"), "{failure}");

        // Ends when the last process that holds the other side does.
        holders.read_to_end(&mut Vec::new()).unwrap();
        assert!(started.elapsed() < Duration::from_secs(30));
    }
}
