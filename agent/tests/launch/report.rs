//! How a launch went, waited for.

use std::{task::Poll, time::Duration};

use agent::host::{
    launch::{Launch, LaunchError, Report},
    process::Process,
};
use anyhow::{Context as _, Result, bail, ensure};
use rustix::{
    event::{PollFd, PollFlags},
    time::Timespec,
};

/// The server, when its program has been executed.
pub(crate) fn launched(Launch { process, mut report, .. }: Launch) -> Result<Process> {
    match reported(&mut report)? {
        Ok(()) => Ok(process),
        Err(error) => bail!(error),
    }
}

/// Why it was not launched; what was to become the server is gone then.
pub(crate) fn failure(begun: Result<Launch, LaunchError>) -> Result<LaunchError> {
    let Launch { process, mut report, .. } = match begun {
        Err(error) => return Ok(error),
        Ok(launch) => launch,
    };
    let error = reported(&mut report)?.err().context("launched what cannot be")?;
    ensure!(process.has_exited_within(Duration::from_secs(20))?, "the trampoline does not end");
    process.reap()?;
    Ok(error)
}

fn reported(report: &mut Report) -> Result<Result<(), LaunchError>> {
    loop {
        if let Poll::Ready(told) = report.poll() {
            return Ok(told);
        }
        let ready = rustix::event::poll(
            &mut [PollFd::new(&*report, PollFlags::IN)],
            Some(&Timespec { tv_sec: 20, tv_nsec: 0 }),
        )?;
        ensure!(ready > 0, "no report");
    }
}
