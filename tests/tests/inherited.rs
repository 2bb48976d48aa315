//! What a new generation is launched with: what the old one was launched with, and nothing that it gave to itself.

use std::fs;
use std::path::Path;

use anyhow::Result;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::agent::upgrade;
use tests::servers::{Commanded, Inline, Server};
use tests::stage::{LIMIT, Stage};
use tests::wait;

const PORT: u16 = 8080;

/// Lines of a server that listens at once.
const LISTEN: &str = "listener.bind(('::', port)); listener.listen(128)\n";

/// An ordinary user: the kernel does not count root's processes.
const AS_NOBODY: [&str; 4] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];

fn said(stage: &Stage, server: &dyn Server, generation: u32, options: &[&str]) -> Result<String> {
    let argv = server.command(generation)?;
    Ok(stage.agent.switch(PORT, options, &argv)?.success()?.stderr)
}

#[test]
fn limits_that_a_server_lowered_for_itself_are_not_its_successors() -> Result<()> {
    let lower = format!(
        "subprocess.run(['true'], check=True)
open(sys.argv[0] + '.of-' + str(os.getuid()) + '.' + str(answer), 'w').write('a start writes')
{LISTEN}resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
"
    );
    let server = Inline::new(PORT, &lower)?.first_through(&AS_NOBODY);
    make_writable(server.directory())?;
    let (stage, _first) = Stage::attached(&server)?;
    let told = said(&stage, &server, 2, &[])?;
    for limit in ["nproc=0:0", "fsize=0:0"] {
        assert!(told.contains(&format!("the limit {limit} is not inherited")), "{told}");
    }
    assert!(!told.contains("core="), "it can start without core files: {told}");
    assert_eq!(stage.generation(server.address())?, 2);
    // What generation 2 was launched with, not what it has made of it.
    let told = said(&stage, &server, 3, &[])?;
    assert!(!told.contains("is not inherited"), "{told}");
    assert_eq!(stage.generation(server.address())?, 3);
    Ok(())
}

#[test]
fn a_limit_that_keeps_a_server_from_starting_is_named() -> Result<()> {
    let server = Inline::new(PORT, LISTEN)?.first_through(&AS_NOBODY);
    let (stage, _first) = Stage::attached(&server)?;
    let refused = stage.agent.switch(PORT, &["--limit", "nproc=0"], &server.command(2)?)?;
    assert_eq!(refused.code, Some(5), "{refused:?}");
    assert!(refused.stderr.contains("RLIMIT_NPROC"), "{refused:?}");
    assert!(refused.stderr.contains("--limit nproc="), "{refused:?}");
    assert_eq!(stage.generation(server.address())?, 1);
    Ok(())
}

fn make_writable(directory: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(fs::set_permissions(directory, fs::Permissions::from_mode(0o777))?)
}

/// It executes itself anew with an environment of its own, as haproxy's master does, and answers with what it finds.
const EXECUTES_ITSELF: &str = "
if 'AGAIN' not in os.environ:
    own = {**os.environ, 'AGAIN': '1', 'NUMBER': '666', 'LISTEN_FDS': '1'}
    own['FOUND'] = str(int(os.environ.get('NUMBER', 0)) + (500 if 'GUNICORN_FD' in os.environ else 0))
    os.execve(sys.executable, [sys.executable, *sys.argv], own)
answer = int(os.environ['FOUND'])
";

#[test]
fn the_environment_is_that_of_the_launch() -> Result<()> {
    let server = Inline::new(PORT, &format!("{EXECUTES_ITSELF}{LISTEN}"))?.first_through(&[
        "env",
        "NUMBER=1",
        "GUNICORN_FD=7",
        "AGAIN=1",
        "FOUND=1",
    ]);
    let (stage, _first) = Stage::attached(&server)?;
    // Handed to the first one alone; and its mark that it was executed anew is taken away by hand.
    let told = said(&stage, &server, 2, &["--env", "AGAIN-", "--env", "FOUND-"])?;
    assert!(told.contains("GUNICORN_FD (gunicorn)"), "{told}");
    assert_eq!(stage.generation(server.address())?, 1);
    stage.until_steady(PORT)?;
    // Of the second one, `/proc` shows AGAIN, 666 and LISTEN_FDS.
    let told = said(&stage, &server, 3, &[])?;
    assert!(!told.contains("LISTEN_FDS"), "{told}");
    assert_eq!(stage.generation(server.address())?, 1);
    stage.until_steady(PORT)?;
    // Also after a restart of the agent; and what is said by hand is kept from then on.
    stage.agent.kill_daemon()?;
    stage.agent.start_daemon()?;
    said(&stage, &server, 4, &["--env", "NUMBER=4", "--env", "GUNICORN_FD=7"])?;
    assert_eq!(stage.generation(server.address())?, 504);
    stage.until_steady(PORT)?;
    said(&stage, &server, 5, &[])?;
    assert_eq!(stage.generation(server.address())?, 504);
    Ok(())
}

/// It executes itself anew when it is told, with less than it was given.
const FORGETS: &str = "
import signal
answer = int(os.environ.get('NUMBER', 0))
again = lambda *_: os.execve(sys.executable, [sys.executable, *sys.argv], {'PATH': os.environ['PATH']})
signal.signal(signal.SIGHUP, again)
";

#[test]
fn the_environment_of_one_that_was_found_is_that_of_the_moment_when_it_was() -> Result<()> {
    let server =
        Inline::new(PORT, &format!("{FORGETS}{LISTEN}"))?.first_through(&["env", "NUMBER=7"]);
    let (stage, first) = Stage::attached(&server)?;
    kill(Pid::from_raw(first.pid()), Signal::SIGHUP)?;
    wait::until("it to have forgotten", LIMIT, || {
        Ok(stage.generation(server.address()).is_ok_and(|it| it == 0).then_some(()))
    })?;
    stage.switch(&server, 2, &[])?;
    assert_eq!(stage.generation(server.address())?, 7);
    Ok(())
}

#[test]
fn a_file_that_would_be_the_old_releases_is_refused_before_anything_happens() -> Result<()> {
    let server = Inline::new(PORT, LISTEN)?;
    let (stage, _first) = Stage::attached(&server)?;
    let release = tempfile::tempdir()?;
    fs::copy(server.directory().join("server.py"), release.path().join("server.py"))?;
    let port = PORT.to_string();
    let relative = ["python3", "server.py", &port, "2"].map(str::to_owned);
    let upgraded = |options: &[&str]| {
        let words = upgrade(PORT, options, &relative);
        let mut command = stage.agent.command(&words);
        stage.agent.start(command.current_dir(release.path()))?.finish()
    };
    let refused = upgraded(&[])?;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    for words in [&release.path().display().to_string(), "--cwd ."] {
        assert!(refused.stderr.contains(words), "{refused:?}");
    }
    assert_eq!(stage.agent.service(PORT)?.generations.len(), 1);
    upgraded(&["--cwd", "."])?.success()?;
    assert_eq!(stage.generation(server.address())?, 2);
    let pid = stage.agent.service(PORT)?.generations[0].pids[0];
    assert_eq!(fs::read_link(format!("/proc/{pid}/cwd"))?, fs::canonicalize(release.path())?);
    Ok(())
}

#[test]
fn a_server_on_a_moved_port_sees_the_public_one() -> Result<()> {
    let asks = format!("{LISTEN}answer = listener.getsockname()[1]\n");
    let server = Inline::new(PORT, &asks)?;
    let (stage, _first) = Stage::attached(&server)?;
    stage.switch(&server, 2, &["--user", "65534"])?;
    assert_eq!(stage.generation(server.address())?, u32::from(PORT));

    let stage = Stage::new()?;
    stage.agent.start_daemon_without(&["public_port4", "public_port6"])?;
    let _first = stage.start(&server, 1)?;
    stage.agent.attach(PORT)?.success()?;
    stage.switch(&server, 2, &["--user", "65534"])?;
    assert_ne!(stage.generation(server.address())?, u32::from(PORT), "nobody tells it");
    Ok(())
}

/// As who gives itself a title does (`setproctitle`): over its arguments, and the environment behind them.
const WRITE_TITLE: &str = "import ctypes, runpy, sys
stat = open('/proc/self/stat').read().rsplit(')', 1)[1].split()
begin, end = int(stat[47]), int(stat[48])
title = b'erver: master process TITLE=1'
ctypes.memset(begin, 0, end - begin)
ctypes.memmove(begin, title, len(title))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')";

#[test]
fn an_environment_that_was_written_over_is_not_believed_and_that_is_said() -> Result<()> {
    let titled = ["/usr/bin/python3", "-c", WRITE_TITLE, "{}/server.py", "8080", "1"];
    let first = Commanded::new(PORT, &titled)?;
    let (stage, _first) = Stage::attached(&first)?;
    let notes = first.directory().join("given");
    let path = notes.display().to_string();
    let words = ["/usr/bin/python3", "{}/server.py", "8080", "2", "--describe", &path];
    let next = Commanded::new(PORT, &words)?;
    let told = said(&stage, &next, 2, &["--env", "MODE=production"])?;
    assert!(told.contains("written a title over its environment"), "{told}");
    let given: serde_json::Value = serde_json::from_str(&fs::read_to_string(&notes)?)?;
    let environment = given["environment"].as_object().expect("variables");
    assert_eq!(environment["MODE"], "production");
    assert!(environment.contains_key("PATH") && !environment.contains_key("TITLE"), "{given}");
    let told = said(&stage, &next, 3, &[])?;
    assert!(!told.contains("title"), "the second one was launched with a known one: {told}");
    stage.detach(PORT)
}

/// It would lead the other user to code of the old one's.
#[test]
fn another_user_gets_no_environment_of_one_who_is_not_root() -> Result<()> {
    let server = Commanded::new(PORT, &["/usr/bin/python3", "{}/server.py", "8080", "1"])?;
    let (stage, _first) = Stage::attached(&server)?;
    let has_own = |generation: u32| -> Result<bool> {
        let service = stage.until_steady(PORT)?;
        let pid = tests::stage::generations(&service)[&generation].pids[0];
        let environment = fs::read(format!("/proc/{pid}/environ"))?;
        Ok(environment.split(|byte| *byte == 0).any(|it| it == b"PYTHONPATH=/tmp/own"))
    };
    let own = ["--env", "PYTHONPATH=/tmp/own", "--cwd", "/", "--settle", "0s"];
    stage.switch(&server, 2, &[&own[..], &["--user", "65534"]].concat())?;
    assert!(has_own(2)?);
    stage.switch(&server, 3, &["--settle", "0s"])?;
    assert!(has_own(3)?, "the same user gets it");
    let told = said(&stage, &server, 4, &["--user", "1000", "--settle", "0s"])?;
    assert!(told.contains("without the environment of the running one"), "{told}");
    assert!(!has_own(4)?);
    stage.namespace.clear()
}
