//! What a server writes is its own, and fills no disk.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use tests::servers::{Commanded, Server as _, Started};
use tests::stage::{LIMIT, Stage, generations};
use tests::wait;

const PORT: u16 = 8080;

/// As images of containers are made: it logs to `/dev/stdout` and `/dev/stderr`, which it opens by name.
#[test]
fn a_server_of_another_user_opens_its_output_by_name() -> Result<()> {
    let script = "echo out >> /dev/stdout && echo err >> /dev/stderr && exec /usr/bin/python3 {}/server.py 8080 2";
    let user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c"];
    let first = [&user[..], &["exec /usr/bin/python3 {}/server.py 8080 1"]].concat();
    let first = Commanded::new(PORT, &first)?;
    let (stage, _first) = Stage::attached(&first)?;
    let next = Commanded::new(PORT, &["sh", "-c", script])?;
    stage.switch(&next, 2, &["--cwd", "/"])?;
    assert_eq!(stage.generation(next.address())?, 2);
    let service = stage.agent.service(PORT)?;
    let log = generations(&service)[&2].log.clone().expect("it was launched");
    assert_eq!(fs::read_to_string(log)?, "out\nerr\n");
    stage.detach(PORT)
}

/// A server that was upgraded to this, its log, and the stage.
fn upgraded_to(script: &str) -> Result<(Stage, [Commanded; 2], PathBuf, Started)> {
    let user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let server = ["/usr/bin/python3", "{}/server.py", "8080", "1"];
    let first = Commanded::new(PORT, &[&user[..], &server].concat())?;
    let (stage, started) = Stage::attached(&first)?;
    let next = Commanded::new(PORT, &["sh", "-c", script])?;
    stage.switch(&next, 2, &["--cwd", "/"])?;
    let service = stage.agent.service(PORT)?;
    let log = generations(&service)[&2].log.clone().expect("it was launched");
    Ok((stage, [first, next], log, started))
}

fn room(log: &Path) -> Result<u64> {
    Ok(fs::metadata(log)?.blocks() * 512)
}

/// Room that a file has beyond its end is not seen by its length.
#[test]
fn a_server_that_takes_room_for_its_output_is_cut_too() -> Result<()> {
    let script = "fallocate --keep-size --length 64M /dev/stdout && exec /usr/bin/python3 {}/server.py 8080 2";
    let (stage, _servers, log, _first) = upgraded_to(script)?;
    // The end that is kept is written after the room is given back, and shows that it had the room.
    let earlier = log.with_extension("earlier");
    wait::until("it to be cut", LIMIT, || {
        Ok((room(&log)? < 4 << 20 && earlier.exists()).then_some(()))
    })?;
    stage.detach(PORT)
}

/// What a file has besides its content is neither its length nor its blocks.
#[test]
fn a_server_that_gives_its_output_attributes_has_them_taken_away() -> Result<()> {
    const GIVE: &str = "import os, sys
for number in range(100):
    os.setxattr(1, \"user.%d\" % number, b\"A\" * 1000)
os.execv(sys.argv[1], sys.argv[1:])";
    let script =
        format!("exec /usr/bin/python3 -c '{GIVE}' /usr/bin/python3 {{}}/server.py 8080 2");
    let (stage, _servers, log, _first) = upgraded_to(&script)?;
    wait::until("them to be gone", LIMIT, || {
        Ok((rustix::fs::llistxattr_query(&log)? == 0).then_some(()))
    })?;
    assert_eq!(fs::read_to_string(log)?, "");
    stage.detach(PORT)
}

/// Who has a lease on a file is asked before somebody else opens it.
#[test]
fn a_server_cannot_keep_its_output_from_being_cut() -> Result<()> {
    const LEASE: &str = "import fcntl, os, sys
os.dup2(os.open(os.devnull, os.O_RDWR), 2)
try:
    fcntl.fcntl(1, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    print(\"leased\", flush=True)
except OSError:
    print(\"refused\", flush=True)
os.execv(sys.argv[1], sys.argv[1:])";
    let server = "/usr/bin/python3 {}/server.py 8080 2";
    let script = format!("exec /usr/bin/python3 -c '{LEASE}' {server}");
    let (stage, _servers, log, _first) = upgraded_to(&script)?;
    assert_eq!(fs::read_to_string(log)?, "refused\n");
    stage.detach(PORT)
}

#[test]
fn an_output_that_somebody_else_has_is_cut_when_its_server_is_gone() -> Result<()> {
    // The first writer belongs to nobody: its group ends with the test.
    let script = "exec /usr/bin/python3 {}/server.py 8080 2";
    let (stage, [first, _next], log, _started) = upgraded_to(script)?;
    let file = fs::OpenOptions::new().append(true).open(&log)?;
    let settled = ["--settle", "0s", "--cwd", "/"];
    stage.agent.switch(PORT, &settled, &first.command(3)?[4..])?.success()?;
    stage.until_steady(PORT)?;
    std::io::Write::write_all(&mut &file, &vec![b'x'; 8 << 20])?;
    wait::until("it to be cut", LIMIT, || Ok((room(&log)? < 4 << 20).then_some(())))?;
    stage.detach(PORT)
}

#[test]
fn of_a_server_that_writes_without_end_the_end_is_kept() -> Result<()> {
    let server = Commanded::new(PORT, &["/usr/bin/python3", "{}/server.py", "8080", "1"])?;
    let (stage, _first) = Stage::attached(&server)?;
    let chatters = "yes chatter & exec /usr/bin/python3 {}/server.py 8080 2";
    let chatter = Commanded::new(PORT, &["sh", "-c", chatters])?;
    stage.switch(&chatter, 2, &[])?;
    let service = stage.agent.service(PORT)?;
    let log = generations(&service)[&2].log.clone().expect("it was launched");
    let earlier = log.with_extension("earlier");
    for _cut in 0..3 {
        wait::until("it to be cut", LIMIT, || Ok(earlier.exists().then_some(())))?;
        assert!(fs::metadata(&earlier)?.len() <= 256 << 10);
        fs::remove_file(&earlier)?;
    }
    // A log is no reason for anybody to wait.
    stage.agent.run(&["upgrade", "8080", "--settle", "0s", "--", "false"])?;
    assert_eq!(stage.generation(chatter.address())?, 2);
    let settled = ["--settle", "0s", "--stop-timeout", "1s", "--drain-timeout", "1s"];
    stage.agent.switch(PORT, &settled, &server.command(3)?)?.success()?;
    stage.until("the chatter to end", PORT, |service| service.generations.len() == 1)?;
    assert!(
        wait::until("the last cut", Duration::from_secs(3), || {
            Ok((fs::metadata(&log)?.len() > 0).then_some(()))
        })
        .is_ok()
    );
    stage.detach(PORT)
}
