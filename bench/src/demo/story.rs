//! What happens, act by act.

use std::process::Command;
use std::time::{Duration, Instant};

use agent_api::{History, Services};
use anyhow::{Context, Result, bail, ensure};

use super::stage::{PORT, Stage, generations, serving};
use super::traffic::{KEPT, RATE, READERS};
use super::verdict::Told;
use tests::servers::Server as _;
use tests::wait;

/// Plays all acts. An error means that one did not go as it should.
pub(super) fn tell(stage: &mut Stage<'_>) -> Result<Told> {
    introduce(stage);
    stage.screen.act("1  A server runs, and the agent takes charge of its port");
    stage.open(LAST)?;
    stage.agent(&["attach", "--port", "8080"], DONE, |_, _| Ok(()))?;
    stage.watch(Duration::from_secs(1))?;

    stage.screen.act("2  Version 2: the old one keeps its guests until they leave");
    upgrade(stage, 2)?;
    stage.screen.act("3  Version 3");
    upgrade(stage, 3)?;
    stage.screen.act("4  Version 4 crashes at start: version 3 serves on");
    crash(stage)?;
    stage.screen.act("5  Version 5");
    upgrade(stage, 5)?;
    stage.screen.act("6  Version 6 is taken back at once, while version 5 has guests");
    upgrade_and_undo(stage)?;

    stage.screen.act("7  The agent hands the port back");
    let history = history(stage)?;
    let steered = steered(&stage.look()?);
    stage.agent(&["detach", "--port", "8080"], DONE, |_, _| Ok(()))?;
    wait::sleep(Duration::from_millis(500));
    let seen = stage.clients()?.end()?;
    stop_last(stage)?;
    Ok(Told { history, seen, steered })
}

fn introduce(stage: &Stage<'_>) {
    let Stage { screen, .. } = stage;
    screen.title("Upgrades of an unmodified server, under load, without a lost connection");
    screen.text(&format!(
        "nginx serves port {PORT} in a private network namespace. {RATE} clients connect anew in each second;"
    ));
    screen.text(&format!(
        "in most acts {KEPT} more ask again and again on a connection that they keep, and {READERS} read one long"
    ));
    screen.text("answer slowly. Every failure that any of them sees is counted.");
}

/// An upgrade with guests who are there before it, and leave after the switch.
fn upgrade(stage: &mut Stage<'_>, version: u32) -> Result<()> {
    stage.clients()?.guests_come()?;
    stage.watch(ARRIVE)?;
    let mut arguments = vec!["upgrade", "--port", "8080", "--"];
    let command = stage.server.command(version)?;
    arguments.extend(command.iter().map(String::as_str));
    let mut switched: Option<Instant> = None;
    stage.agent(&arguments, DONE, |stage, services| {
        if serving(services).is_some_and(|serving| serving.number.0 == version) {
            let since = *switched.get_or_insert_with(Instant::now);
            if since.elapsed() > STAY {
                stage.clients()?.guests_leave();
            }
        }
        Ok(())
    })?;
    ensure!(switched.is_some(), "the switch to version {version} was not seen");
    Ok(())
}

fn crash(stage: &mut Stage<'_>) -> Result<()> {
    let command = "echo \"no such setting: colour\" >&2; exit 1";
    let arguments = ["upgrade", "--port", "8080", "--", "sh", "-c", command];
    stage.agent(&arguments, NOT_READY, |_, _| Ok(()))?;
    stage
        .screen
        .output(&format!("(exit code {NOT_READY}: the new generation did not become ready)"));
    let services = stage.look()?;
    match serving(&services) {
        Some(serving) if serving.number.0 == 3 => Ok(()),
        other => bail!("version 3 does not serve after the crash, but {other:?}"),
    }
}

fn upgrade_and_undo(stage: &mut Stage<'_>) -> Result<()> {
    stage.clients()?.guests_come()?;
    stage.watch(ARRIVE)?;
    let mut arguments = vec!["upgrade", "--port", "8080", "--wait", "switched", "--"];
    let command = stage.server.command(LAST)?;
    arguments.extend(command.iter().map(String::as_str));
    stage.agent(&arguments, DONE, |_, _| Ok(()))?;
    // It gets guests of its own, who stay with it as well.
    stage.clients()?.guests_come()?;
    stage.watch(ARRIVE)?;
    stage.agent(&["undo", "--port", "8080"], DONE, |_, _| Ok(()))?;
    stage.watch(STAY)?;
    stage.clients()?.guests_leave();
    stage.watch_until("version 5 to be alone", |services| {
        let mut living = generations(services);
        living.next().is_some_and(|it| it.number.0 == 5) && living.next().is_none()
    })
}

fn history(stage: &Stage<'_>) -> Result<History> {
    let answer = stage.agent.run(&["history", "--port", "8080", "-o", "json"])?.success()?;
    serde_json::from_value(answer.json()?).context("understand the history")
}

fn steered(services: &Services) -> u64 {
    services.services.iter().map(|service| service.steered).sum()
}

/// The agent started it, but it belongs to nobody now.
fn stop_last(stage: &Stage<'_>) -> Result<()> {
    let mut command = stage.server.command(5)?;
    command.extend(["-s", "quit"].map(str::to_owned));
    stage.screen.command(&stage.typed(&command));
    let [program, arguments @ ..] = command.as_slice() else { bail!("there is no command") };
    let output = stage.namespace.output(Command::new(program).args(arguments))?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// How long guests are there before a switch.
const ARRIVE: Duration = Duration::from_millis(1_000);
/// How long guests stay after a switch.
const STAY: Duration = Duration::from_millis(2_500);
/// The highest number of a generation.
const LAST: u32 = 6;
const DONE: i32 = agent_api::ExitCode::Done as i32;
const NOT_READY: i32 = agent_api::ExitCode::NotReady as i32;
