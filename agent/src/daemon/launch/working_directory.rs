//! Where a new generation runs, against where the one who asks for it is.
//!
//! A launched server runs where the old one did. A deploy that turns a link to a new release and starts `python3 server.py`
//! from there means the new release's file, and would get the old one's without a word.

use std::{
    ffi::OsStr,
    fs::{self, Metadata},
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use agent_api::Command;

use super::error::NotLaunched;
use crate::host::{
    context::Context,
    process::{Process, ProcessIdentity},
};

/// What the operator should know of the directory, if it is not the one that the command was called from.
///
/// # Errors
///
/// When a word of the command names a file where it was called, and another one or none where the server would run. The
/// program itself is looked up where it was called (`cli/program`), so that it is not in question.
pub(in crate::daemon) fn check(
    command: &Command,
    context: &Context,
    namespaces_of: Option<ProcessIdentity>,
) -> Result<Option<String>, NotLaunched> {
    let Some(here) = command.called_from.as_deref().filter(|_| command.working_directory.is_none())
    else {
        return Ok(None);
    };
    let there = Path::new(context.working_directory.as_os_str());
    let seen = match namespaces_of {
        Some(process) => beneath(&PathBuf::from(format!("/proc/{}/root", process.pid)), there),
        None => there.to_owned(),
    };
    if same(fs::metadata(here).ok().as_ref(), fs::metadata(&seen).ok().as_ref()) {
        return Ok(None);
    }
    let words = command.arguments.iter().skip(1).map(AsRef::as_ref);
    if let Some(word) = words.filter_map(path_in).find(|word| is_another(here, &seen, word)) {
        return Err(NotLaunched::OtherDirectory {
            word: word.to_owned(),
            here: here.to_owned(),
            there: there.to_owned(),
            is_there: seen.join(word).exists(),
        });
    }
    Ok(Some(format!(
        "the new generation runs in `{}`, as the old one does, and not in `{}`, from where it is asked for: say `--cwd .` if it should",
        there.display(),
        here.display(),
    )))
}

/// The directory that a process is in, by device and inode; nothing if it is gone.
pub(in crate::daemon) fn held_by(process: ProcessIdentity) -> Option<(u64, u64)> {
    let directory = fs::metadata(format!("/proc/{}/cwd", process.pid)).ok()?;
    // Its number is nobody else's if it lives still.
    Process::reopen(process).ok()?;
    Some((directory.dev(), directory.ino()))
}

/// A path seen from another root.
fn beneath(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// The relative path that a word of a command line may be, or may have behind its `=`.
fn path_in(word: &OsStr) -> Option<&Path> {
    let bytes = word.as_bytes();
    let value = match bytes.iter().position(|byte| *byte == b'=') {
        Some(equals) => &bytes[equals + 1..],
        None => bytes,
    };
    let relative = !value.is_empty() && !value.starts_with(b"/") && !value.starts_with(b"-");
    relative.then(|| Path::new(OsStr::from_bytes(value)))
}

/// Whether a word means something here, and not the same there. A bare word that is the name of a directory as well
/// (`npm run build`) is no path for that.
fn is_another(here: &Path, there: &Path, word: &Path) -> bool {
    let Ok(meant) = fs::metadata(here.join(word)) else { return false };
    let looks_like_path = word.as_os_str().as_bytes().iter().any(|byte| b"./".contains(byte));
    (meant.is_file() || looks_like_path)
        && !same(Some(&meant), fs::metadata(there.join(word)).ok().as_ref())
}

fn same(one: Option<&Metadata>, other: Option<&Metadata>) -> bool {
    let place = |file: &Metadata| (file.dev(), file.ino());
    one.is_some() && one.map(place) == other.map(place)
}

#[cfg(test)]
mod tests {
    use agent_api::ProblemKind;

    use super::*;
    use crate::host::process::Pid;

    /// Two releases, and what is said of a command that is called in the second one.
    fn said(words: &[&str]) -> Result<Option<String>, NotLaunched> {
        let releases = tempfile::tempdir().unwrap();
        let [old, new] = ["old", "new"].map(|name| releases.path().join(name));
        for release in [&old, &new] {
            fs::create_dir_all(release.join("build")).unwrap();
            fs::write(release.join("server.py"), "").unwrap();
        }
        fs::write(new.join("added"), "").unwrap();
        fs::write(old.join("shared"), "").unwrap();
        fs::hard_link(old.join("shared"), new.join("shared")).unwrap();
        let mut context = Context::of(Pid::ours(), Pid::ours()).unwrap();
        context.working_directory = old.as_path().into();
        let command = Command {
            program: Some("/usr/bin/python3".into()),
            arguments: words.iter().map(|word| (*word).to_owned()).collect(),
            called_from: Some(new),
            ..Command::default()
        };
        check(&command, &context, None)
    }

    #[test]
    fn a_file_that_is_another_one_there_is_refused() {
        for words in [
            &["python3", "server.py"][..],
            &["python3", "./server.py", "-v"],
            &["python3", "-c", "added"],
            &["python3", "--config=added"],
            &["python3", "CONFIG=server.py"],
            &["python3", "-m", "http.server", "--directory", "."],
        ] {
            let refused = said(words).unwrap_err();
            let message = refused.to_string();
            assert_eq!(refused.kind(), ProblemKind::Usage, "{words:?}");
            assert!(message.contains("/old") && message.contains("/new"));
            assert!(refused.fix().unwrap().contains("--cwd ."), "{words:?}");
        }
    }

    #[test]
    fn words_that_are_no_files_or_the_same_are_not() {
        for words in [
            &["server.py"][..],
            &["npm", "run", "build"],
            &["python3", "shared"],
            &["gunicorn", "app:application", "-b", "0.0.0.0:80"],
            &["python3", "/etc/hostname", "--", "=", ""],
        ] {
            let warning = said(words).unwrap().unwrap();
            assert!(warning.contains("/old") && warning.contains("/new"), "{warning}");
        }
    }
}
