//! A server that cannot be upgraded is refused with the reason, before anything is touched.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use tests::agent::upgrade;
use tests::servers::Server;
use tests::stage::{self, Stage};

/// Version 1 runs. The attach or the first upgrade is refused, the reason has all of these words, and nothing has changed.
pub(crate) async fn is_refused(stage: &Stage, server: &dyn Server, words: &[&str]) -> Result<()> {
    let clients = stage.load(server.plan().generations(1..=1))?;
    stage::until_answers(&clients, 1, 20)?;
    let before = stage.namespace.processes()?;
    let attach = stage.agent.attach(server.port())?;
    let refusal = if attach.code == Some(0) {
        stage.agent.run(&upgrade(server.port(), &[], &server.command(2)?))?
    } else {
        attach
    };
    ensure!(refusal.code == Some(4), "not refused: {refusal:?}");
    for word in words {
        ensure!(refusal.stderr.contains(word), "`{word}` is no part of the reason: {refusal:?}");
    }

    let agent = stage.agent.processes()?;
    let after: BTreeSet<i32> =
        stage.namespace.processes()?.into_iter().filter(|pid| !agent.contains(pid)).collect();
    ensure!(after == before, "processes {before:?} have become {after:?}");
    let answered = clients.snapshot().generations()[&1];
    stage::until_answers(&clients, 1, answered + 20)?;
    stage::nobody_noticed(clients).await;
    Ok(())
}
