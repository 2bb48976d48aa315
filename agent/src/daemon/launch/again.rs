//! What the running generation was started with, for an upgrade that names no command: a restart.
//!
//! Of one that we launched it is written down. One that was found shows its command line, which it may have written over: it is
//! taken only if it names a program, and launched only as the user that shows it.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use agent_api::Command;
use agent_rollout::Origin;
use agent_terms::{GenerationId, ServiceId};

use super::error::{NotLaunched, Unclear};
use crate::{
    daemon::{agent::Agent, identify::found},
    host::{
        context::Context,
        holders,
        launch::places_of_program,
        os_text::OsText,
        patience::{self, Whose},
        process::{Pid, whole_command_line},
    },
};

impl Agent {
    /// The command with its program: that of the running generation, if none is named.
    ///
    /// # Errors
    ///
    /// When nothing runs, or what runs does not show what it was started with.
    pub(in crate::daemon) fn with_program(
        &self,
        id: ServiceId,
        command: Command,
    ) -> Result<Command, NotLaunched> {
        if command.program.is_some() {
            return Ok(command);
        }
        if !command.arguments.is_empty() {
            return Err(NotLaunched::NoProgram);
        }
        if command.user.is_some() || command.group.is_some() {
            return Err(NotLaunched::OtherUser);
        }
        let service = &self.record(id).service;
        let Some(primary) = service.primary() else {
            return Err(NotLaunched::NoPrimary);
        };
        let (program, arguments) = match primary.origin() {
            Origin::Launched { program: Some(program), command, .. } => {
                (program.clone(), command.clone())
            }
            // What was lost with the state is shown by its processes.
            Origin::Launched { program: None, .. } | Origin::Found => {
                let pids = self.pids_of(GenerationId { service: id, number: primary.number() })?;
                let root = holders::roots(&pids)?.first().copied();
                shown_by(root.ok_or(NotLaunched::Ended)?, self.launcher.pid())?
            }
        };
        // Nobody has typed it here.
        Ok(Command { program: Some(program), arguments, called_from: None, ..command })
    }
}

/// The program and the arguments that a process shows.
fn shown_by(pid: Pid, launcher: Pid) -> Result<(PathBuf, Vec<String>), NotLaunched> {
    let words = whole_command_line(pid)?;
    let context = Context::of(pid, launcher)?;
    let unclear = |why| NotLaunched::Unclear { process: found::describe(pid), why };
    let first = words.first().ok_or_else(|| unclear(Unclear::NoCommandLine))?.clone();
    let arguments = words.iter().map(|word| word.as_os_str().to_str().map(str::to_owned));
    let arguments: Option<Vec<_>> = arguments.collect();
    let arguments = arguments.ok_or_else(|| unclear(Unclear::NoText))?;
    // Its directories may be on a file system of its own.
    let look = move || {
        let directory = Path::new(context.working_directory.as_os_str());
        let path = |(name, _): &&(OsText, OsText)| name.as_bytes() == b"PATH";
        let search = context.environment.iter().find(path).map(|(_, value)| value.as_os_str());
        places_of_program(first.as_os_str(), directory, search).find(|it| is_program(pid, it))
    };
    let program = patience::with(Whose::Process(pid), look)
        .map_err(|error| unclear(Unclear::NoAnswer(error)))?;
    Ok((program.ok_or_else(|| unclear(Unclear::Title))?, arguments))
}

/// Whether there is a program, as this process sees it. A link may lead elsewhere below another root: that shows at the launch.
fn is_program(pid: Pid, path: &Path) -> bool {
    const EXECUTE: u32 = 0o111;
    let seen = Path::new("/proc").join(pid.to_string()).join("root");
    let seen = seen.join(path.strip_prefix("/").unwrap_or(path));
    match fs::metadata(&seen) {
        Ok(file) => file.is_file() && file.permissions().mode() & EXECUTE != 0,
        Err(_) => fs::symlink_metadata(&seen).is_ok_and(|it| it.is_symlink()),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader},
        os::unix::process::CommandExt as _,
        process::{Child, Stdio},
    };

    use super::*;

    /// One that has executed its program.
    fn shell(called: &str) -> (Child, Pid) {
        let mut child = std::process::Command::new("/bin/sh")
            .arg0(called)
            .args(["-c", "echo; read line"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut String::new()).unwrap();
        let pid = Pid::new(child.id().cast_signed()).unwrap();
        (child, pid)
    }

    #[test]
    fn a_command_line_is_taken_and_a_title_is_not() {
        for (called, program) in
            [("sh", Some("sh")), ("/bin/sh", Some("sh")), ("server: master process", None)]
        {
            let (mut child, pid) = shell(called);
            let shown = shown_by(pid, Pid::ours());
            child.kill().unwrap();
            child.wait().unwrap();
            match (shown, program) {
                (Ok((path, arguments)), Some(name)) => {
                    assert!(path.is_absolute() && path.ends_with(name), "{}", path.display());
                    assert_eq!(arguments, [called, "-c", "echo; read line"]);
                }
                (Err(error), None) => assert!(error.to_string().contains("title"), "{error:?}"),
                (shown, _) => panic!("{called}: {shown:?}"),
            }
        }
    }
}
