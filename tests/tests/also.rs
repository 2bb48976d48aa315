//! A process belongs to one service, and nothing else ends or comes back with a generation unsaid.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use anyhow::{Result, ensure};
use tests::process::children;
use tests::servers::{Commanded, Script, Server as _};
use tests::stage::{LIMIT, Stage};
use tests::wait;

const PORT: u16 = 8080;

#[test]
fn one_server_is_not_attached_as_two_services() -> Result<()> {
    let stage = Stage::new()?;
    let server = Script::with(PORT, &["--beside", "8081"])?;
    let first = stage.start(&server, 1)?;
    let attached = stage.attach(PORT, &[])?;
    assert!(attached.warnings.iter().any(|it| it.contains("port 8081 too")), "{attached:?}");

    let said = stage.refused(&["attach", "--port", "8081"], 7)?;
    for word in [&first.pid().to_string(), "service `python3-8080`", "--port 8080,8081"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    // That the port is attached says nothing of another process.
    let stranger = std::process::id().to_string();
    stage.refused(&["attach", "--port", "8080", "--pid", &stranger], 7)?;
    let again = stage.attach(PORT, &["--pid", &first.pid().to_string()])?;
    assert!(!again.changed);
    Ok(())
}

#[test]
fn a_server_of_one_service_is_no_candidate_of_another() -> Result<()> {
    let stage = Stage::new()?;
    let one = Script::new(PORT)?;
    let _one = stage.start(&one, 1)?;
    stage.attach(PORT, &["--name", "one"])?;
    let other = Script::new(8081)?;
    let other = stage.start(&other, 1)?;
    stage.attach(8081, &["--name", "other"])?;
    for new in [["--listen", "8081"], ["--pid", &other.pid().to_string()]] {
        let said = stage.refused(&["upgrade", "one", new[0], new[1]], 7)?;
        assert!(said.contains("service `other`"), "{said}");
    }
    Ok(())
}

#[test]
fn what_else_would_end_is_named_first_and_refused() -> Result<()> {
    let stage = Stage::new()?;
    let server = Script::with(PORT, &["--beside", "8081"])?;
    let first = stage.start(&server, 1)?;
    stage.attach(PORT, &[])?;
    // What else it listens on is not the service's, also when connections come and it is looked at.
    for _ in 0..20 {
        assert_eq!(stage.generation(server.address())?, 1);
    }
    let listeners = &stage.agent.service(PORT)?.generations[0].listeners;
    ensure!(listeners.len() == 1 && listeners[0].bound.port() == PORT, "{listeners:?}");
    let next = Script::new(PORT)?.command(2)?;
    let upgrade = |options: &[&str]| stage.agent.run(&tests::agent::upgrade(PORT, options, &next));
    for options in [&[][..], &["--dry-run"]] {
        let refused = upgrade(options)?;
        assert_eq!(refused.code, Some(4), "{refused:?}");
        for word in ["port 8081", &format!("process {}", first.pid()), "--also"] {
            assert!(refused.stderr.contains(word), "{word}: {refused:?}");
        }
    }
    let service = stage.agent.service(PORT)?;
    assert!(service.generations.len() == 1 && service.generations[0].number.0 == 1, "{service:?}");

    let script = Script::new(PORT)?;
    stage.agent.run(&tests::agent::upgrade(PORT, &["--also"], &script.command(2)?))?.success()?;
    stage.until_steady(PORT)?;
    assert!(!stage.namespace.listens(8081)?);
    Ok(())
}

#[test]
fn so_is_what_a_child_of_the_server_serves() -> Result<()> {
    let stage = Stage::new()?;
    let server = Script::with(PORT, &["--child", "8081"])?;
    let first = stage.start(&server, 1)?;
    wait::until("the child to listen", LIMIT, || Ok(stage.namespace.listens(8081)?.then_some(())))?;
    let child = format!("process {}", children(first.pid())?[0]);
    let attached = stage.attach(PORT, &[])?;
    assert!(attached.warnings.iter().any(|it| it.contains(&child)), "{attached:?}");
    let refused = stage.agent.upgrade(PORT, &server.command(2)?)?;
    assert_eq!(refused.code, Some(4), "{refused:?}");
    assert!(refused.stderr.contains(&child), "{refused:?}");
    Ok(())
}

#[test]
fn the_port_on_which_a_generation_was_taken_in_is_its_own() -> Result<()> {
    let stage = Stage::new()?;
    let blue = Script::new(PORT)?;
    let _blue = stage.start(&blue, 1)?;
    stage.attach(PORT, &[])?;
    let green = Script::new(9090)?;
    let _green = stage.start(&green, 2)?;
    stage.agent.run(&["upgrade", "--port", "8080", "--listen", "9090"])?.success()?;
    stage.agent.upgrade(PORT, &blue.command(3)?)?.success()?;
    Ok(())
}

#[test]
fn a_server_that_its_supervisor_would_start_again_is_not_told_to_end() -> Result<()> {
    let stage = Stage::new()?;
    let server = Commanded::new(PORT, &["runsv", "{}/web"])?;
    let web = server.directory().join("web");
    fs::create_dir(&web)?;
    let script = server.directory().join("server.py");
    fs::write(web.join("run"), format!("#!/bin/sh\nexec python3 {} 8080 1\n", script.display()))?;
    fs::set_permissions(web.join("run"), fs::Permissions::from_mode(0o755))?;
    let _supervisor = stage.start(&server, 1)?;

    let attached = stage.attach(PORT, &[])?;
    assert!(attached.warnings.iter().any(|it| it.contains("`sv once SERVICE`")), "{attached:?}");
    let next = Script::new(PORT)?;
    let refused = stage.agent.upgrade(PORT, &next.command(2)?)?;
    assert_eq!(refused.code, Some(4), "{refused:?}");
    assert!(refused.stderr.contains("runit") && refused.stderr.contains("again"), "{refused:?}");

    let told = Command::new("sv").arg("once").arg(&web).status()?;
    ensure!(told.success(), "sv once: {told}");
    wait::until("the supervisor to let it end", LIMIT, || {
        Ok((fs::read(web.join("supervise/status"))?.get(17) == Some(&b'd')).then_some(()))
    })?;
    stage.agent.upgrade(PORT, &next.command(2)?)?.success()?;
    let service = stage.until_steady(PORT)?;
    assert_eq!(service.generations[0].number.0, 2);
    Ok(())
}

#[test]
fn a_supervisor_that_has_the_listener_itself_is_no_server() -> Result<()> {
    let stage = Stage::new()?;
    // As pm2 has it in cluster mode, and calls itself.
    let title = "PM2 v5.4.2: God Daemon (/root/.pm2)";
    let command = format!("exec -a '{title}' /usr/bin/python3 {{}}/server.py 8080 1");
    let server = Commanded::new(PORT, &["bash", "-c", &command])?;
    let first = stage.start(&server, 1)?;
    let said = stage.refused(&["attach", "--port", "8080"], 4)?;
    assert!(said.contains("which is pm2") && said.contains("fork mode"), "{said}");

    // Whoever names it may have it, and is asked once more.
    stage.attach(PORT, &["--pid", &first.pid().to_string()])?;
    let refused = stage.agent.upgrade(PORT, &Script::new(PORT)?.command(2)?)?;
    assert_eq!(refused.code, Some(4), "{refused:?}");
    assert!(refused.stderr.contains("all that it runs would end with it"), "{refused:?}");
    Ok(())
}
