//! Servers that somebody else starts again when they end, or that hold up more than themselves: refused.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};
use tests::servers::{Keeps, Kind, Release, Released, Server as _, Version};

use crate::place::Place;
use crate::procedure::Procedure;
use crate::refusal::is_refused;
use crate::shell::SERVER;

/// A small server by itself.
const SERVED: Kind = Kind {
    name: "served",
    port: 8080,
    user: None,
    keeps: Keeps::Connections,
    pid_file: None,
    release: |release| {
        let server =
            release.file("server.py", SERVER, "import a_module_that_is_not_installed\n")?;
        let (port, number) = (SERVED.port.to_string(), release.version.number().to_string());
        Ok(["python3", &server, &port, &number].map(str::to_owned).to_vec())
    },
};

/// runit: `runsv` starts the service again whenever it ends, and so the old version beside the new one.
const RUNIT: Kind = Kind {
    name: "runit",
    release: |release| {
        let command = (SERVED.release)(release)?;
        if !is_first(release) {
            return Ok(command);
        }
        let script = format!("#!/bin/sh\nexec {}\n", command.join(" "));
        let run = release.file("run", &script, "")?;
        fs::set_permissions(run, fs::Permissions::from_mode(0o755))?;
        Ok(["runsv", &release.here()].map(str::to_owned).to_vec())
    },
    ..SERVED
};

/// The first process of a PID namespace, as in a container: its end is that of all others there.
const INIT: Kind = Kind {
    name: "init",
    release: |release| {
        let command = (SERVED.release)(release)?;
        if !is_first(release) {
            return Ok(command);
        }
        let words = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];
        Ok(words.map(str::to_owned).into_iter().chain(command).collect())
    },
    ..SERVED
};

/// pm2: its daemon holds the listeners of every application.
const PM2: Kind = Kind {
    name: "pm2",
    pid_file: Some("pm2.pid"),
    release: |release| under_pm2(release, "cluster"),
    ..SERVED
};

/// pm2 in its other mode: the application has its listener itself, and is started again whenever it ends.
const PM2_FORK: Kind =
    Kind { name: "pm2-fork", release: |release| under_pm2(release, "fork"), ..PM2 };

fn under_pm2(release: &Release<'_>, mode: &str) -> Result<Vec<String>> {
    let web = release.file("web.js", PM2_APPLICATION, "")?;
    if !is_first(release) {
        return Ok(["node", &web].map(str::to_owned).to_vec());
    }
    release.file("other.js", &PM2_APPLICATION.replace("@PORT@", "8081"), "")?;
    let applications = PM2_APPLICATIONS.replace("@MODE@", mode);
    let applications = release.file("ecosystem.config.js", &applications, "")?;
    let home = format!("PM2_HOME={}", release.shared(""));
    let program = pm2()?.display().to_string();
    Ok(["env", &home, &program, "start", &applications].map(str::to_owned).to_vec())
}

/// What would take over from a supervised version is the server by itself.
fn is_first(release: &Release<'_>) -> bool {
    release.version == Version::Works(1)
}

const PM2_APPLICATION: &str = r"require('node:http')
  .createServer((request, response) => response.end('@VERSION@\n'))
  .listen(@PORT@);
";

const PM2_APPLICATIONS: &str = "module.exports = { apps: [
  { name: 'web', script: '@HERE@/web.js', exec_mode: '@MODE@' },
  { name: 'other', script: '@HERE@/other.js', exec_mode: '@MODE@' },
] };
";

/// What `cargo xtask setup` has installed.
fn pm2() -> Result<PathBuf> {
    let tools = std::env::var_os("AGENT_TEST_TOOLS");
    let tools = tools.map_or_else(|| PathBuf::from(TOOLS), PathBuf::from);
    let program = tools.join("pm2/node_modules/.bin/pm2");
    ensure!(
        program.exists(),
        "there is no `{}`: `cargo xtask setup` installs it",
        program.display()
    );
    Ok(program)
}

async fn refused(kind: Kind, words: &[&str]) -> Result<()> {
    let server = Released::new(kind)?;
    let place = Place::new()?;
    let _first = place.stage.start(&server, 1)?;
    is_refused(&place.stage, &server, words).await
}

#[tokio::test]
async fn a_service_of_runit_is_refused() -> Result<()> {
    refused(RUNIT, &["runit", "sv once"]).await
}

/// Told to let its service end, `runsv` minds its own business from then on.
#[tokio::test]
async fn a_service_of_runit_that_may_end() -> Result<()> {
    let server = Released::new(RUNIT)?;
    let place = Place::new()?;
    let first = place.stage.start(&server, 1)?;
    let told = Command::new("sv").arg("once").arg(server.directory().join("v1")).output()?;
    ensure!(told.status.success(), "{told:?}");
    let (clients, others) = (server.address(), BTreeSet::from([first.pid()]));
    Procedure { server: &server, options: &[], clients, others }.run(&place.stage).await
}

#[tokio::test]
async fn the_first_process_of_a_pid_namespace_is_refused() -> Result<()> {
    refused(INIT, &["namespace"]).await
}

#[tokio::test]
async fn an_application_under_pm2_is_refused() -> Result<()> {
    refused(PM2, &["pm2"]).await
}

#[tokio::test]
async fn an_application_that_pm2_starts_again_is_refused() -> Result<()> {
    refused(PM2_FORK, &["pm2"]).await
}

const TOOLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/tools");
