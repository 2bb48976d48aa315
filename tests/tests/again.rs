//! An upgrade without a command: what runs is started again.

use anyhow::{Result, ensure};
use tests::servers::{Nginx, Script, Server as _};
use tests::stage::Stage;

const PORT: u16 = 8080;

#[tokio::test]
async fn a_server_that_was_found_or_launched_is_started_again_with_all_that_it_was_given()
-> Result<()> {
    let server = Script::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    let load = stage.busy(&server)?;
    let again = || stage.agent.run(&["upgrade", "--port", "8080", "--settle", "0s"]);
    let command = |service: &agent_api::ServiceView, number: u32| {
        let of = service.generations.iter().find(|it| it.number.0 == number);
        of.map(|it| it.command.clone())
    };
    let found = command(&stage.agent.service(PORT)?, 1);
    again()?.success()?;
    let service = stage.agent.service(PORT)?;
    ensure!(command(&service, 2) == found, "{service:?}");
    // From elsewhere, with a variable that stays.
    let argv = server.command(3)?;
    stage.agent.switch(PORT, &["--settle", "0s", "--env", "KEPT=1"], &argv)?.success()?;
    again()?.success()?;
    let service = stage.agent.service(PORT)?;
    ensure!(command(&service, 4) == Some(argv), "{service:?}");
    let pid = service.generations.iter().find(|it| it.takes_new_connections).map(|it| it.pids[0]);
    let environment = std::fs::read(format!("/proc/{}/environ", pid.unwrap_or_default()))?;
    ensure!(environment.split(|byte| *byte == 0).any(|it| it == b"KEPT=1"), "it is lost");
    let summary = load.stop().await.summary;
    assert_eq!(summary.failures(), 0, "{summary}");
    Ok(())
}

#[test]
fn a_title_is_no_command_and_another_user_needs_one() -> Result<()> {
    let server = Nginx::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    let said = stage.refused(&["upgrade", "--port", "8080"], 4)?;
    ensure!(said.contains("it gave itself a title") && said.contains("-- COMMAND"), "{said}");
    let said = stage.refused(&["upgrade", "--port", "8080", "--user", "root"], 2)?;
    ensure!(said.contains("needs a command"), "{said}");
    let said = stage.refused(&["upgrade", "--port", "8080", "--"], 2)?;
    ensure!(said.contains("no command after"), "{said}");
    ensure!(stage.agent.service(PORT)?.generations.len() == 1, "something was launched");
    Ok(())
}
