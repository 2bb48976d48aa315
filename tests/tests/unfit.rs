//! Listeners to which nobody can be steered: what they accept would never be closed, or never be answered.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use anyhow::{Result, ensure};
use tests::servers::{Commanded, Script, Server as _};
use tests::stage::{LIMIT, Stage};
use tests::{agent, wait};

const PORT: u16 = 8080;

/// Makes a listener of the first connection that says something, and closes whatever that one accepts.
const RELISTENING: &str = "import ctypes, socket
libc = ctypes.CDLL(None)
def listener():
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind((\"0.0.0.0\", 8080))
    made.listen(128)
    return made
first = listener()
said = b\"\"
while not said:
    again, _ = first.accept()
    said = again.recv(9)
libc.connect(again.fileno(), ctypes.create_string_buffer(16), 16)
again.bind((\"0.0.0.0\", 8080))
again.listen(128)
first.close()
while True:
    again.accept()[0].close()";

/// In a socket map such a listener makes sockets that the kernel does not close, whoever ends (`sock_map_close`).
#[test]
fn a_listener_that_was_a_connection_is_not_steered_to() -> Result<()> {
    let server = Commanded::new(PORT, &["/usr/bin/python3", "-c", RELISTENING])?;
    let stage = Stage::new()?;
    let _first = stage.start(&server, 1)?;
    stage.agent.attach(PORT)?.success()?;
    stage.connect(server.address())?.write_all(b"now")?;
    let warning =
        "gets none of its new listeners: a listener of the server was a connection before";
    wait::until("the warning", LIMIT, || {
        let events = stage.agent.run(&["events"])?.success()?.stdout;
        Ok(events.contains(warning).then_some(()))
    })?;
    for _ in 0..20 {
        let mut client = stage.connect(server.address())?;
        client.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut byte = [0];
        ensure!(matches!(client.read(&mut byte), Ok(0)), "the server's close() closed nothing");
    }
    stage.agent.detach(PORT)?.success()?;
    let refused = stage.refused(&["attach", "--port", "8080"], 4)?;
    ensure!(refused.contains("was a connection before"), "{refused}");
    Ok(())
}

/// Clients of all other interfaces would wait for an answer in vain.
#[test]
fn a_new_version_on_one_network_interface_does_not_become_ready() -> Result<()> {
    const BOUND: &str = "import socket
made = socket.socket()
made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b\"lo\")
made.bind((\"0.0.0.0\", 8080))
made.listen(128)
while True:
    made.accept()[0].close()";
    let server = Script::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    let bound = ["/usr/bin/python3", "-c", BOUND].map(str::to_owned);
    let upgrade = stage.agent.run(&agent::upgrade(PORT, &["--timeout", "2s"], &bound))?;
    assert_eq!(upgrade.code, Some(5), "{upgrade:?}");
    let reason = "it listens on 0.0.0.0:8080 of one network interface, not on 0.0.0.0:8080";
    ensure!(upgrade.stderr.contains(reason), "{}", upgrade.stderr);
    assert_eq!(stage.generation(server.address())?, 1);
    Ok(())
}
