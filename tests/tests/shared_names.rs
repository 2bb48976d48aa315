//! Names that both generations go by: the old one does not take them along.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use agent_load::Plan;
use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tests::servers::{Commanded, Script, Server};
use tests::stage::{LIMIT, Stage};
use tests::wait;

const PORT: u16 = 8080;

/// nginx in all generations with one configuration file, as a package installs it.
#[derive(Debug)]
struct OneConfiguration {
    directory: TempDir,
}

impl OneConfiguration {
    fn new() -> Result<Self> {
        Ok(Self { directory: tempfile::tempdir()? })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command_with(&self, more: &[&str]) -> Vec<String> {
        let text = |path: PathBuf| path.display().to_string();
        let own =
            ["nginx", "-e", &text(self.file("error.log")), "-c", &text(self.file("nginx.conf"))];
        own.iter().chain(more).map(|word| (*word).to_owned()).collect()
    }
}

impl Server for OneConfiguration {
    fn name(&self) -> &'static str {
        "nginx"
    }

    fn port(&self) -> u16 {
        PORT
    }

    fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn command(&self, generation: u32) -> Result<Vec<String>> {
        let path = self.directory().display();
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {path}/{name};"))
            .join(" ");
        let configuration = format!(
            "worker_processes 1; daemon off; pid {path}/nginx.pid; error_log {path}/error.log;
events {{ worker_connections 64; }}
http {{ access_log {path}/access.log; {temporary}
server {{ listen {PORT}; location / {{ return 200 \"{generation}\\n\"; }} }} }}
"
        );
        fs::write(self.file("nginx.conf"), configuration)?;
        Ok(self.command_with(&[]))
    }

    fn plan(&self) -> Plan {
        Plan::http(self.address()).one_shot(50)
    }
}

fn number(file: &Path) -> Result<i32> {
    Ok(fs::read_to_string(file).with_context(|| file.display().to_string())?.trim().parse()?)
}

#[test]
fn nginx_with_one_configuration_is_reloaded_and_its_log_rotated_after_an_upgrade() -> Result<()> {
    let server = OneConfiguration::new()?;
    let (stage, _first) = Stage::attached(&server)?;
    let graceful = ["--drain", "graceful", "--drain-signal", "QUIT"];
    for generation in 2..=3 {
        stage.switch(&server, generation, &graceful)?;
        let service = stage.until_steady(PORT)?;
        assert_eq!(number(&server.file("nginx.pid"))?, service.generations[0].pids[0]);
    }
    let events = stage.agent.run(&["events"])?.success()?.stdout;
    assert!(
        events.contains("nginx.pid` along as it ended: given back to generation 3"),
        "{events}"
    );

    fs::rename(server.file("access.log"), server.file("access.log.1"))?;
    kill(Pid::from_raw(number(&server.file("nginx.pid"))?), Signal::SIGUSR1)?;
    wait::until("a new log", LIMIT, || Ok(server.file("access.log").exists().then_some(())))?;
    let words = server.command_with(&["-s", "reload"]);
    let reload = Command::new(&words[0]).args(&words[1..]).output()?;
    assert!(reload.status.success(), "{reload:?}");
    assert_eq!(stage.generation(server.address())?, 3);
    let left = fs::read_dir(server.directory())?.filter_map(Result::ok);
    let names = left.map(|it| it.file_name().to_string_lossy().into_owned());
    let seconds: Vec<_> = names.filter(|it| it.contains(".of-generation-")).collect();
    assert_eq!(seconds, [""; 0], "no second name stays: {}", stage.agent.run(&["events"])?.stdout);
    Ok(())
}

#[test]
fn a_socket_that_the_old_one_unlinks_is_given_back_also_by_the_next_agent() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let [control, pid_file] = ["control.sock", "server.pid"].map(|it| directory.path().join(it));
    let text = |path: &Path| path.display().to_string();
    let options = ["--control", &text(&control), "--pid-file", &text(&pid_file)];
    let server = Script::with(PORT, &options)?;
    let (stage, mut first) = Stage::attached(&server)?;
    // The agent is gone when the old one ends.
    let agent = stage.agent.daemon().context("no agent runs")?;
    let faults = stage.agent.runtime().join("faults");
    fs::create_dir(&faults)?;
    fs::write(faults.join("armed"), "kill-after signal 0\n")?;
    let words = tests::agent::upgrade(PORT, &[], &server.command(2)?);
    let upgrade = stage.agent.start(&mut stage.agent.command(&words))?;
    wait::until("the old one to end", LIMIT, || Ok((!first.lives()?).then_some(())))?;
    // It looks whether it is to be killed when it has told the old one, which may have ended by then; its lock is its own until
    // it is gone.
    assert!(agent.ended_within(LIMIT)?, "the agent lives");
    fs::remove_dir_all(faults)?;
    assert!(!control.exists() && !pid_file.exists(), "it took them along");
    stage.agent.start_daemon()?;
    upgrade.finish()?.success()?;
    let second = stage.until_steady(PORT)?.generations[0].pids[0];
    assert_eq!(number(&pid_file)?, second);
    UnixStream::connect(&control)?;
    assert_eq!(fs::read_dir(directory.path())?.count(), 2, "no second name stays");
    Ok(())
}

#[test]
fn a_pid_file_that_the_old_one_empties_names_the_new_one_again() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let pid_file = directory.path().join("server.pid");
    let options = ["--empty-pid-file", "--pid-file", &pid_file.display().to_string()];
    let server = Script::with(PORT, &options)?;
    let (stage, _first) = Stage::attached(&server)?;
    for generation in 2..=3 {
        stage.switch(&server, generation, &[])?;
        let service = stage.until_steady(PORT)?;
        assert_eq!(number(&pid_file)?, service.generations[0].pids[0]);
    }
    Ok(())
}

/// Version 2 takes the names over and is taken back: by its own death, by an undo, and killed before it could remove anything.
#[test]
fn what_a_version_took_that_is_taken_back_is_given_back() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let [control, pid_file] = ["control.sock", "server.pid"].map(|it| directory.path().join(it));
    let names = [
        "--control",
        &control.display().to_string(),
        "--pid-file",
        &pid_file.display().to_string(),
    ];
    let (server, dies) = (Script::with(PORT, &names)?, ["--die-after", "0.2"]);
    let (stage, first) = Stage::attached(&server)?;
    let serves_again = |how: &str| {
        wait::until(how, LIMIT, || {
            let named = number(&pid_file).is_ok_and(|it| it == first.pid());
            Ok((named && UnixStream::connect(&control).is_ok()).then_some(()))
        })?;
        let left = fs::read_dir(directory.path())?.count();
        ensure!(left == 2, "{how}: a second name stays");
        Ok(())
    };
    let words = server.command(2)?.into_iter().chain(dies.map(str::to_owned)).collect::<Vec<_>>();
    let upgrade = tests::agent::upgrade(PORT, &["--settle", "2s"], &words);
    let failed = stage.agent.run(&upgrade)?;
    assert_eq!(failed.code, Some(8), "{failed:?}");
    assert!(failed.stderr.contains("server.pid"), "nobody was told before: {failed:?}");
    serves_again("after it died")?;

    stage.agent.switch(PORT, &["--keep-old", "60s"], &server.command(3)?)?.success()?;
    assert_ne!(number(&pid_file)?, first.pid());
    stage.agent.undo(PORT)?.success()?;
    stage.until_steady(PORT)?;
    serves_again("after an undo")?;

    stage.switch(&server, 4, &[])?;
    let service = stage.until_steady(PORT)?;
    assert_eq!(number(&pid_file)?, service.generations[0].pids[0]);
    assert_eq!(fs::read_dir(directory.path())?.count(), 2, "no second name stays");
    Ok(())
}

/// A user chooses the numbers of his processes in a PID namespace of his own.
#[test]
fn a_pid_file_of_somebody_else_is_not_the_servers_whatever_number_that_has_somewhere() -> Result<()>
{
    const SCRIPT: &str =
        "unshare -Urpf --mount-proc sh -c 'echo $((NUMBER - 1)) > /proc/sys/kernel/ns_last_pid
        sleep 60 & echo $! > {}/inside; wait' &
        exec /usr/bin/python3 {}/server.py 8080 1";
    let mut daemon = Command::new("sleep").arg("60").spawn()?;
    let file = tempfile::Builder::new().prefix("agent-test-").suffix(".pid").tempfile_in("/run")?;
    fs::write(file.path(), format!("{}\n", daemon.id()))?;
    let script = SCRIPT.replace("NUMBER", &daemon.id().to_string());
    let user = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups", "sh", "-c"];
    let server = Commanded::new(PORT, &[&user[..], &[&script]].concat())?;
    std::os::unix::fs::chown(server.directory(), Some(54_321), None)?;
    let (stage, _first) = Stage::attached(&server)?;
    let inside = server.directory().join("inside");
    let number = || Ok(fs::read_to_string(&inside).ok().filter(|it| it.ends_with('\n')));
    let number = wait::until("the number inside", LIMIT, number)?;
    assert_eq!(number.trim(), daemon.id().to_string());
    let next = Script::new(PORT)?;
    let words = tests::agent::upgrade(PORT, &["--dry-run", "--cwd", "/"], &next.command(2)?);
    let told = stage.agent.run(&words)?.success()?;
    daemon.kill()?;
    daemon.wait()?;
    let name = file.path().display().to_string();
    assert!(!told.stdout.contains(&name) && !told.stderr.contains(&name), "{told:?}");
    stage.namespace.clear()
}

/// In a mount namespace of his own anybody binds any path.
#[test]
fn a_socket_of_somebody_else_is_not_the_servers_whatever_it_binds_elsewhere() -> Result<()> {
    const BINDS: &str = "import socket, time
listener = socket.socket(socket.AF_UNIX); listener.bind('PATH'); listener.listen()
open('{}/bound', 'w').close(); time.sleep(60)";
    let folder = tempfile::Builder::new().prefix("agent-test-").tempdir_in("/run")?;
    let path = folder.path().join("control");
    let _theirs = std::os::unix::net::UnixListener::bind(&path)?;
    let path = path.display().to_string();
    let elsewhere =
        format!("mount -t tmpfs none {} && exec python3 -c \"$0\"", folder.path().display());
    let script = format!(
        "unshare -Urm sh -c '{elsewhere}' \"$0\" & exec /usr/bin/python3 {{}}/server.py 8080 1"
    );
    let user = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups", "sh", "-c"];
    let binds = BINDS.replace("PATH", &path);
    let server = Commanded::new(PORT, &[&user[..], &[&script, &binds]].concat())?;
    std::os::unix::fs::chown(server.directory(), Some(54_321), None)?;
    let (stage, _first) = Stage::attached(&server)?;
    let bound = server.directory().join("bound");
    wait::until("the socket elsewhere", LIMIT, || Ok(bound.exists().then_some(())))?;
    let next = Script::new(PORT)?;
    let words = tests::agent::upgrade(PORT, &["--dry-run", "--cwd", "/"], &next.command(2)?);
    let told = stage.agent.run(&words)?.success()?;
    assert!(!told.stdout.contains(&path) && !told.stderr.contains(&path), "{told:?}");
    stage.namespace.clear()
}
