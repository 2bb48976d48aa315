//! What a server cannot lend to its successor: the rights of a set-user-ID program that it executed, and directories that its user
//! cannot get to.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use anyhow::{Context as _, Result};
use tests::agent::upgrade;
use tests::servers::{Commanded, Server as _};
use tests::stage::{Stage, generations};

const PORT: u16 = 8080;
const USER: u32 = 65_534;

/// Runs a server as a user who is not root.
const AS_USER: [&str; 5] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"];

/// Python with a bit that makes whoever executes it somebody else.
fn set_id_python(directory: &Path, bit: u32) -> Result<String> {
    let copy = directory.join("python3");
    fs::copy(fs::canonicalize("/usr/bin/python3")?, &copy)?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755 | bit))?;
    copy.to_str().map(str::to_owned).context("a path that is text")
}

fn open_directory() -> Result<tempfile::TempDir> {
    let directory = tempfile::Builder::new().prefix("agent-test-borrowed-").tempdir()?;
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
    Ok(directory)
}

/// Whether a server that a user runs by a program with this bit is refused, and why.
fn is_refused(bit: u32, arguments: &[&str]) -> Result<()> {
    let directory = open_directory()?;
    let python = set_id_python(directory.path(), bit)?;
    let words = [&AS_USER[..], &[&python], arguments, &["{}/server.py", "8080", "1"]].concat();
    let server = Commanded::new(PORT, &words)?;
    let stage = Stage::new()?;
    let _server = stage.start(&server, 1)?;
    let said = stage.refused(&["attach", "--port", "8080"], 4)?;
    assert!(said.contains("set-user-ID"), "{said}");
    Ok(())
}

/// Its listener is root's, and so is its effective user; or its group is one that its user is not in.
#[test]
fn rights_of_a_set_id_program_are_not_the_servers() -> Result<()> {
    is_refused(0o4000, &[])?;
    is_refused(0o2000, &[])
}

/// Its real, effective and saved users are all root then, as those of a server that root started.
#[test]
fn nor_where_the_program_makes_them_its_only_ones() -> Result<()> {
    let become_root = "import os, runpy, sys; os.setresuid(0, 0, 0); sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')";
    is_refused(0o4000, &["-c", become_root])
}

/// A server of a user's, in a directory of its own.
fn server_in(directory: &Path) -> Result<(Stage, Commanded, tests::servers::Started)> {
    let go_there = format!(
        "cd {} && exec setpriv --reuid=65534 --regid=65534 --clear-groups /usr/bin/python3 {{}}/server.py 8080 1 --reuse-port",
        directory.display()
    );
    let server = Commanded::new(PORT, &["sh", "-c", &go_there])?;
    let (stage, first) = Stage::attached(&server)?;
    Ok((stage, server, first))
}

fn next() -> Result<Commanded> {
    Commanded::new(PORT, &["/usr/bin/python3", "{}/server.py", "8080", "2", "--reuse-port"])
}

/// The name of a directory is the server's to give to something else.
#[test]
fn a_link_in_the_place_of_its_directory_leads_its_successor_nowhere() -> Result<()> {
    let ours = open_directory()?;
    let secret = ours.path().join("secret");
    fs::create_dir_all(secret.join("inner"))?;
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o700))?;
    let its = ours.path().join("its");
    fs::create_dir(&its)?;
    std::os::unix::fs::chown(&its, Some(USER), Some(USER))?;
    let (stage, _server, _first) = server_in(&its)?;
    fs::rename(&its, ours.path().join("aside"))?;
    symlink(secret.join("inner"), &its)?;
    let next = next()?;
    let options = ["--settle", "0s", "--timeout", "5s"];
    let said = stage.refused(&words(&upgrade(PORT, &options, &next.command(2)?)), 5)?;
    assert!(said.contains("may not enter the working directory"), "{said}");
    assert!(said.contains("--cwd"), "{said}");
    assert_eq!(stage.generation(next.address())?, 1);
    let named = ["--cwd", "/", "--settle", "0s", "--timeout", "5s"];
    stage.agent.run(&upgrade(PORT, &named, &next.command(2)?))?.success()?;
    stage.detach(PORT)
}

/// Root has started it there.
#[test]
fn a_directory_that_only_root_gets_to_is_its_successors_as_long_as_it_is_there() -> Result<()> {
    let ours = open_directory()?;
    let closed = ours.path().join("closed");
    fs::create_dir_all(closed.join("inner"))?;
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700))?;
    let (stage, _server, _first) = server_in(&closed.join("inner"))?;
    stage.switch(&next()?, 2, &["--settle", "0s"])?;
    let service = stage.agent.service(PORT)?;
    let pid = generations(&service)[&2].pids[0];
    assert_eq!(fs::read_link(format!("/proc/{pid}/cwd"))?, closed.join("inner").canonicalize()?);
    stage.detach(PORT)
}

fn words(command: &[String]) -> Vec<&str> {
    command.iter().map(String::as_str).collect()
}

fn in_a_user_namespace() -> Result<Commanded> {
    let words = [
        &AS_USER[..],
        &["unshare", "--user", "--map-root-user", "--mount"],
        &["setpriv", "--inh-caps=+setuid", "--ambient-caps=+setuid"],
        &["/usr/bin/python3", "{}/server.py", "8080", "1", "--reuse-port"],
    ];
    Commanded::new(PORT, &words.concat())
}

/// Whoever makes a user namespace may do anything in it, and what that is means nothing outside.
#[test]
fn capabilities_of_a_user_namespace_stay_there() -> Result<()> {
    let server = in_a_user_namespace()?;
    let (stage, mut first) = Stage::attached(&server)?;
    let next = next()?;
    let options = ["--namespaces", "agent", "--cwd", "/", "--settle", "0s"];
    let outside = upgrade(PORT, &options, &next.command(2)?);
    stage.agent.run(&outside)?.success()?;
    let second = stage.until_steady(PORT)?.generations[0].pids[0];
    let status = fs::read_to_string(format!("/proc/{second}/status"))?;
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(status.contains(&format!("{set}:\t{:016x}\n", 0)), "{set}: {status}");
    }
    assert!(status.contains("Uid:\t65534\t65534\t65534\t65534"), "{status}");
    stage.detach(PORT)?;
    first.kill()?;
    Ok(())
}

/// Nobody can enter namespaces that have ended: their server's successor would live outside, without having been asked to.
#[test]
fn a_successor_does_not_leave_namespaces_that_ended_unasked() -> Result<()> {
    let server = in_a_user_namespace()?;
    let (stage, mut first) = Stage::attached(&server)?;
    first.kill()?;
    stage.until("nobody", PORT, |service| {
        service.generations[0].state == agent_api::GenerationState::Dead
    })?;
    let next = next()?;
    let words = upgrade(PORT, &["--cwd", "/"], &next.command(2)?);
    let refused = stage.agent.run(&words)?;
    assert_eq!(refused.code, Some(4), "{}", refused.stderr);
    assert!(refused.stderr.contains("namespaces of its own (mnt, user)"), "{}", refused.stderr);
    assert!(refused.stderr.contains("--namespaces agent"), "{}", refused.stderr);
    stage.detach(PORT)
}
