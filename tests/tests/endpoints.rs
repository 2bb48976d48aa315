//! A service takes up the addresses that its primary serves beyond those that were attached.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use agent_api::ServiceView;
use anyhow::Result;
use tests::namespace::ADDRESS;
use tests::servers::{Script, Server as _};
use tests::stage::{self, LIMIT, Stage};
use tests::wait;

const PORT: u16 = 8080;
const IPV4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const IPV6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

fn at(address: &str) -> Result<Script> {
    Script::with(PORT, &["--address", address])
}

fn endpoints(service: &ServiceView) -> Vec<String> {
    service.endpoints.iter().map(ToString::to_string).collect()
}

/// Waits until the service has these endpoints.
fn until(stage: &Stage, wanted: &[&str]) -> Result<()> {
    stage.until("the endpoints", PORT, |service| endpoints(service) == wanted).map(drop)
}

/// Puts the generation before back, and does not wait for flows.
fn undo(stage: &Stage) -> Result<()> {
    stage.agent.run(&["undo", "--port", "8080", "--wait", "switched"])?.success().map(drop)
}

/// Of so many new connections to an address all go to one generation: the kernel's own lookup would spread them.
fn all_go_to(stage: &Stage, address: IpAddr, generation: u32) -> Result<()> {
    for _ in 0..20 {
        assert_eq!(stage.generation(SocketAddr::new(address, PORT))?, generation, "{address}");
    }
    Ok(())
}

/// Generation 2 serves an address that was not attached; generation 3 takes its connections there too.
fn is_taken_up(first: &str, second: &str, new: &str, address: IpAddr) -> Result<()> {
    let (before, second) = (at(first)?, at(second)?);
    let (stage, _first) = Stage::attached(&before)?;
    let attached = format!("{first}:{PORT}");
    until(&stage, &[&attached])?;
    stage.switch(&second, 2, &[])?;
    until(&stage, &[&attached, new])?;
    let events = stage.agent.run(&["events"])?.success()?.stdout;
    assert!(events.contains(&format!("generation 2 takes up {new}")), "{events}");

    let mut pinned = stage.connect(SocketAddr::new(address, PORT))?;
    assert_eq!(stage::ask(&mut pinned)?, 2);
    stage.switch(&second, 3, &[])?;
    all_go_to(&stage, address, 3)?;
    assert_eq!(stage::ask(&mut pinned)?, 2);
    undo(&stage)?;
    all_go_to(&stage, address, 2)
}

#[test]
fn another_family_that_the_next_version_serves_is_switched_with_the_one_after_it() -> Result<()> {
    is_taken_up("0.0.0.0", "::", "[::]:8080", IPV6)
}

#[test]
fn all_addresses_that_the_next_version_serves_are_switched_with_the_one_after_it() -> Result<()> {
    is_taken_up("127.0.0.1", "0.0.0.0", "0.0.0.0:8080", ADDRESS.parse()?)
}

#[test]
fn a_version_that_does_not_serve_all_of_them_is_not_ready() -> Result<()> {
    let (first, second) = (at("0.0.0.0")?, at("::")?);
    let (stage, _first) = Stage::attached(&first)?;
    stage.switch(&second, 2, &[])?;
    until(&stage, &["0.0.0.0:8080", "[::]:8080"])?;
    let narrow = stage.agent.switch(PORT, &["--timeout", "1s"], &first.command(3)?)?;
    assert_eq!(narrow.code, Some(5), "{narrow:?}");
    assert!(narrow.stderr.contains("not on [::]:8080"), "{narrow:?}");
    all_go_to(&stage, IPV6, 2)
}

#[test]
fn undo_leaves_them_to_the_kernel_as_before() -> Result<()> {
    let (first, second) = (at("0.0.0.0")?, at("::")?);
    let (stage, _first) = Stage::attached(&first)?;
    let mut old = stage.connect((IPV4, PORT).into())?;
    assert_eq!(stage::ask(&mut old)?, 1);
    stage.switch(&second, 2, &[])?;
    until(&stage, &["0.0.0.0:8080", "[::]:8080"])?;
    let mut pinned = stage.connect((IPV6, PORT).into())?;
    assert_eq!(stage::ask(&mut pinned)?, 2);

    let undone = stage.agent.run(&["undo", "--port", "8080", "--wait", "switched"])?.success()?;
    assert!(undone.stderr.contains("generation 1 does not listen on [::]:8080"), "{undone:?}");
    until(&stage, &["0.0.0.0:8080"])?;
    all_go_to(&stage, IPV4, 1)?;
    all_go_to(&stage, IPV6, 2)?;
    assert_eq!(stage::ask(&mut pinned)?, 2);
    // And once more: it is the primary again, and serves them again.
    undo(&stage)?;
    until(&stage, &["0.0.0.0:8080", "[::]:8080"])?;
    all_go_to(&stage, IPV4, 2)?;
    all_go_to(&stage, IPV6, 2)
}

#[test]
fn they_outlive_the_agent() -> Result<()> {
    let (first, second) = (at("0.0.0.0")?, at("::")?);
    let (stage, _first) = Stage::attached(&first)?;
    stage.switch(&second, 2, &[])?;
    until(&stage, &["0.0.0.0:8080", "[::]:8080"])?;
    stage.agent.kill_daemon()?;
    stage.agent.start_daemon()?;
    until(&stage, &["0.0.0.0:8080", "[::]:8080"])?;
    let mut pinned = stage.connect((IPV6, PORT).into())?;
    assert_eq!(stage::ask(&mut pinned)?, 2);
    stage.switch(&second, 3, &[])?;
    all_go_to(&stage, IPV6, 3)
}

/// Whoever wants it is refused it, as without an agent.
#[test]
fn the_address_of_another_service_is_not_shared() -> Result<()> {
    let (one, other) = (at("127.0.0.1")?, at("127.0.0.2")?);
    let stage = Stage::new()?;
    let _servers = [stage.start(&one, 1)?, stage.start(&other, 1)?];
    wait::until("both to listen", LIMIT, || Ok((stage.listeners()?.len() >= 2).then_some(())))?;
    for (name, address) in [("one", "127.0.0.1"), ("other", "127.0.0.2")] {
        stage.attach(PORT, &["--name", name, "--address", address])?;
    }
    let upgrade = |server: &Script| -> Result<_> {
        let command = ["upgrade", "other", "--"].map(str::to_owned);
        stage.agent.run(&[&command[..], &server.command(2)?].concat())
    };
    let both = Script::with(PORT, &["--address", "127.0.0.2", "--address", "127.0.0.1"])?;
    let refused = upgrade(&both)?;
    assert_eq!(refused.code, Some(5), "{refused:#?}");
    assert!(refused.stderr.contains("Address already in use"), "{refused:#?}");
    all_go_to(&stage, IPV4, 1)?;
    // Its own is shared as ever.
    upgrade(&at("127.0.0.2")?)?.success()?;
    all_go_to(&stage, IPV4, 1)?;
    all_go_to(&stage, [127, 0, 0, 2].into(), 2)
}

/// Its place is behind a socket of the packet's own family: it gets none of the service's connections.
#[test]
fn a_stranger_whom_the_kernel_passes_over_keeps_nobody_from_detaching() -> Result<()> {
    let own = Script::with(PORT, &["--address", "0.0.0.0", "--reuse-port"])?;
    let stranger = Script::with(PORT, &["--address", "::", "--reuse-port"])?;
    let (stage, _first) = Stage::attached(&own)?;
    let _stranger = stage.start(&stranger, 7)?;
    wait::until("both to listen", LIMIT, || Ok((stage.listeners()?.len() == 2).then_some(())))?;
    all_go_to(&stage, IPV4, 1)?;
    stage.agent.detach(PORT)?.success()?;
    all_go_to(&stage, IPV4, 1)?;
    all_go_to(&stage, IPV6, 7)
}
