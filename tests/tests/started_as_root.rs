//! Servers that open their port as root and become somebody else: their successors have to start as root, too, which is asked for.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use agent_load::Plan;
use anyhow::Result;
use tempfile::TempDir;
use tests::servers::{Inline, Server};
use tests::stage::{Stage, nobody_noticed};

/// Servers as Debian packages them, with their user, group and root directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Haproxy,
    HaproxyMaster,
    Lighttpd,
}

#[derive(Debug)]
struct Packaged {
    kind: Kind,
    directory: TempDir,
}

impl Packaged {
    fn new(kind: Kind) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("agent-test-packaged-").tempdir()?;
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
        fs::create_dir(directory.path().join("jail"))?;
        Ok(Self { kind, directory })
    }

    fn configuration(&self, generation: u32) -> Result<String> {
        let path = self.directory.path().display();
        let port = self.port();
        Ok(match self.kind {
            Kind::Haproxy | Kind::HaproxyMaster => {
                let daemon = if self.kind == Kind::Haproxy { "daemon" } else { "" };
                format!(
                    "global
 chroot {path}/jail
 stats socket {path}/admin.sock mode 660 level admin
 user haproxy
 group haproxy
 {daemon}
defaults
 mode http
 timeout connect 5s
 timeout client 50s
 timeout server 50s
frontend web
 bind :{port}
 http-request return status 200 content-type text/plain string \"{generation}\"
"
                )
            }
            Kind::Lighttpd => {
                let content = self.directory.path().join(format!("content-{generation}"));
                fs::create_dir_all(&content)?;
                fs::write(content.join("generation"), format!("{generation}\n"))?;
                format!(
                    "server.document-root = \"{}\"
server.port = {port}
server.username = \"www-data\"
server.groupname = \"www-data\"
server.pid-file = \"{path}/gen-{generation}.pid\"
",
                    content.display()
                )
            }
        })
    }
}

impl Server for Packaged {
    fn name(&self) -> &'static str {
        "packaged"
    }

    fn port(&self) -> u16 {
        80
    }

    fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn command(&self, generation: u32) -> Result<Vec<String>> {
        let text = |path: PathBuf| path.display().to_string();
        let file = self.directory().join(format!("gen-{generation}.conf"));
        fs::write(&file, self.configuration(generation)?)?;
        let file = text(file);
        let pid_file = text(self.directory().join(format!("gen-{generation}.pid")));
        let words: &[&str] = match self.kind {
            Kind::Haproxy => &["/usr/sbin/haproxy", "-f", &file, "-p", &pid_file],
            Kind::HaproxyMaster => &["/usr/sbin/haproxy", "-W", "-f", &file],
            Kind::Lighttpd => &["/usr/sbin/lighttpd", "-f", &file],
        };
        Ok(words.iter().map(|word| (*word).to_owned()).collect())
    }

    fn plan(&self) -> Plan {
        Plan::http(self.address()).one_shot(50)
    }

    fn pid_file(&self, generation: u32) -> Option<PathBuf> {
        let file = self.directory().join(format!("gen-{generation}.pid"));
        (self.kind != Kind::HaproxyMaster).then_some(file)
    }
}

async fn is_upgraded_three_times(kind: Kind) -> Result<()> {
    let server = Packaged::new(kind)?;
    let (stage, _first) = Stage::attached(&server)?;
    let clients = stage.load(server.plan())?;
    for (generation, options) in [(2, &["--user", "root"][..]), (3, &[]), (4, &[])] {
        stage.switch(&server, generation, options)?;
        assert_eq!(stage.generation(server.address())?, generation);
        stage.until_steady(server.port())?;
    }
    nobody_noticed(clients).await;
    Ok(())
}

#[tokio::test]
async fn haproxy_as_it_is_packaged_is_upgraded_three_times() -> Result<()> {
    is_upgraded_three_times(Kind::Haproxy).await
}

#[tokio::test]
async fn its_master_that_executes_itself_anew_is_too() -> Result<()> {
    is_upgraded_three_times(Kind::HaproxyMaster).await
}

#[tokio::test]
async fn lighttpd_on_a_privileged_port_is_too() -> Result<()> {
    is_upgraded_three_times(Kind::Lighttpd).await
}

const PORT: u16 = 8080;
const LISTEN: &str = "listener.bind(('::', port)); listener.listen(128)\n";

/// The user that the second generation runs as, where the first one was started by root like this.
fn second_runs_as(server: &Inline) -> Result<u32> {
    let (stage, _first) = Stage::attached(server)?;
    stage.switch(server, 2, &[])?;
    let service = stage.until_steady(PORT)?;
    Ok(fs::metadata(format!("/proc/{}", service.generations[0].pids[0]))?.uid())
}

/// It cannot be told from one that only looks so: nobody is root without being asked.
#[test]
fn for_who_may_have_been_started_as_root_the_operator_is_asked() -> Result<()> {
    let gives_up =
        format!("{LISTEN}if answer == 1: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n");
    second_is_asked_for(&Inline::new(PORT, &gives_up)?)
}

/// Without a user there is no second generation, and with one it is that user's.
fn second_is_asked_for(server: &Inline) -> Result<()> {
    let (stage, _first) = Stage::attached(server)?;
    let refused = stage.agent.switch(PORT, &[], &server.command(2)?)?;
    assert_eq!(refused.code, Some(4), "{refused:?}");
    assert!(refused.stderr.contains("--user root"), "{refused:?}");
    for (generation, user, uid) in [(2, "65534", 65534), (3, "root", 0)] {
        stage.switch(server, generation, &["--user", user])?;
        let service = stage.until_steady(PORT)?;
        let pid = service.generations[0].pids[0];
        assert_eq!(fs::metadata(format!("/proc/{pid}"))?.uid(), uid);
    }
    stage.detach(PORT)
}

/// Root opens the listener, and executes a server as somebody else with it, which does this.
fn handed_on(and_then: &str) -> Result<Inline> {
    let hands_on = format!(
        "if answer == 1 and len(sys.argv) < 4:
    {LISTEN}    os.dup2(listener.fileno(), 9)
    os.execvp('setpriv', ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups', sys.executable, *sys.argv, '9'])
if len(sys.argv) == 4:
    listener.close()
    listener = socket.socket(fileno=9)
    {and_then}
else:
    {LISTEN}"
    );
    Inline::new(PORT, &hands_on)
}

#[test]
fn whom_root_handed_a_listener_is_not() -> Result<()> {
    assert_eq!(second_runs_as(&handed_on("pass")?)?, 65534);
    Ok(())
}

/// A process that may not be dumped looks as one that gave up root: its files in `/proc` are root's.
#[test]
fn who_pretends_to_have_given_up_root_is_asked_for_too() -> Result<()> {
    let hides = "import ctypes; assert ctypes.CDLL(None).prctl(4, 0, 0, 0, 0) == 0";
    second_is_asked_for(&handed_on(hides)?)
}
