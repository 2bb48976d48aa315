//! `cargo xtask install`: the agent with everything that a user expects around it.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    build::{self, Build},
    command,
    layout::Profile,
};

/// Builds for release and installs.
///
/// # Errors
///
/// When the build fails, and when a file cannot be written.
pub(crate) fn run(root: &Path, prefix: &Path, destdir: Option<&Path>) -> Result<()> {
    ensure!(prefix.is_absolute(), "the prefix `{}` is not an absolute path", prefix.display());
    let Build { agent } = build::run(root, Profile::Release)?;
    let place = staged(prefix, destdir);
    program(&agent, &place)?;
    completions(&agent, &place)?;
    manual(&agent, &place)?;
    units(root, prefix, &place)?;
    eprintln!("installed to `{}`", place.display());
    Ok(())
}

/// The prefix inside the folder that a package is made from.
fn staged(prefix: &Path, destdir: Option<&Path>) -> PathBuf {
    match destdir {
        None => prefix.to_owned(),
        Some(destdir) => destdir.join(prefix.strip_prefix("/").unwrap_or(prefix)),
    }
}

/// The binary without its debug information, which is several times as large, and that beside it, where debuggers look for it.
fn program(agent: &Path, place: &Path) -> Result<()> {
    let folder = tempfile::tempdir().context("create a folder for the binary")?;
    let [stripped, debug] = ["agent", "agent.debug"].map(|name| folder.path().join(name));
    let objcopy = || Command::new("objcopy");
    command::run(objcopy().arg("--only-keep-debug").args([agent, &debug]))?;
    let mut link = std::ffi::OsString::from("--add-gnu-debuglink=");
    link.push(&debug);
    command::run(objcopy().arg("--strip-debug").arg(link).args([agent, &stripped]))?;
    put(&place.join("bin/.debug/agent.debug"), &fs::read(&debug)?, Mode::Data)?;
    put(&place.join("bin/agent"), &fs::read(&stripped)?, Mode::Program)
}

fn completions(agent: &Path, place: &Path) -> Result<()> {
    for (shell, file) in [
        ("bash", "share/bash-completion/completions/agent"),
        ("zsh", "share/zsh/site-functions/_agent"),
        ("fish", "share/fish/vendor_completions.d/agent.fish"),
    ] {
        let script = command::output(Command::new(agent).args(["completions", shell]))?;
        ensure!(!script.is_empty(), "the agent has no completions for {shell}");
        put(&place.join(file), script.as_bytes(), Mode::Data)?;
    }
    Ok(())
}

/// Each page goes to the folder of its section, which is the last part of its name.
fn manual(agent: &Path, place: &Path) -> Result<()> {
    let written = tempfile::tempdir().context("create a folder for the manual")?;
    command::run(Command::new(agent).arg("manual").arg(written.path()))?;
    let pages = fs::read_dir(written.path())?.collect::<io::Result<Vec<_>>>()?;
    ensure!(!pages.is_empty(), "the agent wrote no manual pages");
    for page in pages {
        let page = page.path();
        let (Some(name), Some(section)) = (page.file_name(), page.extension()) else {
            bail!("`{}` is not named like a manual page", page.display());
        };
        let folder = place.join("share/man").join(format!("man{}", section.display()));
        put(&folder.join(name), &fs::read(&page)?, Mode::Data)?;
    }
    Ok(())
}

fn units(root: &Path, prefix: &Path, place: &Path) -> Result<()> {
    for name in ["agent.service", "agent-launcher.socket", "agent-launcher@.service"] {
        let source = root.join("packaging/systemd").join(name);
        let text =
            fs::read_to_string(&source).with_context(|| format!("read `{}`", source.display()))?;
        let installed = place.join("lib/systemd/system").join(name);
        put(&installed, with_prefix(&text, prefix).as_bytes(), Mode::Data)?;
    }
    Ok(())
}

/// A unit names the binary below the default prefix.
fn with_prefix(unit: &str, prefix: &Path) -> String {
    unit.replace("/usr/local/bin/", &format!("{}/", prefix.join("bin").display()))
}

/// Writes aside and renames: a running agent keeps its old file, and nobody ever sees half of the new one.
fn put(file: &Path, content: &[u8], mode: Mode) -> Result<()> {
    let folder = file.parent().context("a file has a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("create `{}`", folder.display()))?;
    let aside = tempfile::NamedTempFile::new_in(folder)
        .with_context(|| format!("write to `{}`", folder.display()))?;
    fs::write(&aside, content).with_context(|| format!("write `{}`", aside.path().display()))?;
    aside.as_file().set_permissions(fs::Permissions::from_mode(match mode {
        Mode::Program => 0o755,
        Mode::Data => 0o644,
    }))?;
    aside.persist(file).with_context(|| format!("install `{}`", file.display()))?;
    Ok(())
}

/// What a file is for decides who may do what with it.
#[derive(Clone, Copy, Debug)]
enum Mode {
    Program,
    Data,
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt, path::Path};

    use super::{Mode, put, staged, with_prefix};

    #[test]
    fn a_package_gets_the_prefix_inside_its_folder() {
        assert_eq!(staged(Path::new("/usr"), None), Path::new("/usr"));
        assert_eq!(staged(Path::new("/usr"), Some(Path::new("pkg"))), Path::new("pkg/usr"));
    }

    #[test]
    fn the_unit_starts_the_binary_below_the_prefix() {
        let unit = "ExecStart=/usr/local/bin/agent daemon\n";
        assert_eq!(with_prefix(unit, Path::new("/usr")), "ExecStart=/usr/bin/agent daemon\n");
        assert_eq!(with_prefix(unit, Path::new("/usr/local")), unit);
    }

    #[test]
    fn a_file_is_replaced_whole_and_with_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("bin/agent");
        put(&file, b"one", Mode::Data).unwrap();
        put(&file, b"two", Mode::Program).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"two");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(fs::read_dir(folder.path().join("bin")).unwrap().count(), 1);
    }
}
