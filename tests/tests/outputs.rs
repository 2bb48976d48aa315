//! What a server writes is its own, and fills no disk.

use std::fs;
use std::time::Duration;

use anyhow::Result;
use tests::servers::{Commanded, Server as _};
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
