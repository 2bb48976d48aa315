//! What can be typed, and what is shown.

use std::{ffi::OsString, time::Duration};

use agent_api::Selected;
use agent_terms::Signal;
use clap::{ArgAction, CommandFactory, error::ErrorKind};

use super::{
    arguments::{Cli, Command, DrainWhen, Format, Wait},
    config::Refused,
    output::Answer,
    samples::{self, BLACK, WIDE},
};

fn parse(line: &str) -> Result<Cli, ErrorKind> {
    let typed = line.split_whitespace();
    // Whatever is configured on this machine.
    let arguments = ["agent", "--config=/dev/null"].into_iter().chain(typed);
    match Cli::read(arguments.map(OsString::from)) {
        Ok(cli) => Ok(cli),
        Err(Refused::CommandLine(error)) => Err(error.kind()),
        Err(Refused::Configuration(problem)) => panic!("{problem}"),
    }
}

fn refusal(line: &str) -> ErrorKind {
    parse(line).expect_err(line)
}

#[test]
fn the_definition_holds_together() {
    Cli::command().debug_assert();
}

#[test]
fn global_options_alone_have_a_variable_and_it_is_named_after_them() {
    let root = Cli::command();
    for command in root.get_subcommands().chain([&root]) {
        for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
            let Some(long) = arg.get_long() else { continue };
            if long == "json" || matches!(arg.get_action(), ArgAction::Help | ArgAction::Version) {
                continue;
            }
            let expected = format!("AGENT_{}", long.to_uppercase().replace('-', "_"));
            let variable = arg.get_env().and_then(|name| name.to_str());
            let expected = arg.is_global_set().then_some(expected.as_str());
            assert_eq!(variable, expected, "{} --{long}", command.get_name());
        }
    }
}

#[test]
fn every_command_and_option_is_explained() {
    let root = Cli::command();
    for command in root.get_subcommands() {
        assert!(command.get_about().is_some(), "{}", command.get_name());
        for arg in command.get_arguments() {
            assert!(arg.get_help().is_some(), "{} {}", command.get_name(), arg.get_id());
        }
    }
}

#[test]
fn help_is_stable() {
    let mut root = Cli::command().term_width(100);
    root.build();
    insta::assert_snapshot!("help", root.render_help());
    for name in ["attach", "upgrade", "undo", "load"] {
        let command = root.find_subcommand_mut(name).unwrap();
        insta::assert_snapshot!(format!("help_{name}"), command.render_long_help());
    }
}

#[test]
fn an_upgrade_is_of_exactly_one_service() {
    assert!(parse("upgrade web -- x").is_ok());
    assert!(parse("upgrade --port 80 -- x").is_ok());
    assert_eq!(refusal("upgrade -- x"), ErrorKind::MissingRequiredArgument);
    assert_eq!(refusal("upgrade web --port 80 -- x"), ErrorKind::ArgumentConflict);
    assert_eq!(refusal("upgrade a/b -- x"), ErrorKind::ValueValidation);
    assert_eq!(refusal("upgrade --port 0 -- x"), ErrorKind::ValueValidation);
}

#[test]
fn an_upgrade_is_to_exactly_one_server() {
    assert!(parse("upgrade web --pid 7").is_ok());
    assert!(parse("upgrade web --listen 9090").is_ok());
    assert!(parse("upgrade web").is_ok(), "a restart");
    assert_eq!(refusal("upgrade web --pid 7 -- x"), ErrorKind::ArgumentConflict);
    assert_eq!(refusal("upgrade web --pid 7 --listen 80"), ErrorKind::ArgumentConflict);
    assert_eq!(refusal("upgrade web --pid 7 --user www"), ErrorKind::ArgumentConflict);
    assert_eq!(refusal("upgrade web --pid 0"), ErrorKind::ValueValidation);
}

#[test]
fn an_upgrade_has_its_defaults() {
    let Command::Upgrade(upgrade) = parse("upgrade 8080 -- ./server --port 1").unwrap().command
    else {
        panic!("not an upgrade")
    };
    assert_eq!(upgrade.service.selected(), Selected::Port(8080));
    assert_eq!(upgrade.new.command, ["./server", "--port", "1"]);
    assert_eq!(upgrade.wait, Wait::Drained);
    assert_eq!(upgrade.timeout, Duration::from_secs(60));
    assert_eq!(upgrade.drain.drain, DrainWhen::Patient);
    assert_eq!(upgrade.drain.drain_timeout, Duration::from_secs(3600));
    assert_eq!(upgrade.drain.drain_signal, Signal::TERM);
    assert_eq!(upgrade.drain.queue_timeout, Duration::from_secs(5));
    assert_eq!(upgrade.drain.stop_timeout, Duration::from_secs(10));
    assert!(!upgrade.dry_run && upgrade.drain.drain_idle.is_none());
}

#[test]
fn durations_are_written_as_people_write_them() {
    let Command::Undo(undo) =
        parse("undo web --drain-timeout 1h30m --drain-idle 500ms --wait drained").unwrap().command
    else {
        panic!("not an undo")
    };
    assert_eq!(undo.drain.drain_timeout, Duration::from_secs(5400));
    assert_eq!(undo.drain.drain_idle, Some(Duration::from_millis(500)));
    assert_eq!(Wait::from(undo.wait), Wait::Drained);
    assert_eq!(refusal("undo web --drain-timeout soon"), ErrorKind::ValueValidation);
    assert_eq!(refusal("undo web --wait ready"), ErrorKind::InvalidValue);
}

#[test]
fn attach_takes_several_ports() {
    for line in ["attach --port 80 --port 443", "attach -p 80,443"] {
        let Command::Attach(attach) = parse(line).unwrap().command else { panic!("{line}") };
        assert_eq!(attach.ports, [80, 443]);
    }
    assert_eq!(refusal("attach"), ErrorKind::MissingRequiredArgument);
    assert_eq!(refusal("attach --port 80 --name 80"), ErrorKind::ValueValidation);
}

#[test]
fn status_is_of_one_or_all() {
    let Command::Status(status) = parse("status --exit-code").unwrap().command else {
        panic!("not a status")
    };
    assert!(status.exit_code && status.service.selected().is_none());
    assert_eq!(refusal("status web --port 80"), ErrorKind::ArgumentConflict);
    assert_eq!(refusal("status --watch --exit-code"), ErrorKind::ArgumentConflict);
}

#[test]
fn global_options_stand_anywhere() {
    for line in ["-o wide status -vv", "status --output wide -v -v"] {
        let global = parse(line).unwrap().global;
        assert_eq!((global.output, global.verbose), (Format::Wide, 2));
    }
    assert!(parse("detach web --json").unwrap().global.json);
}

#[test]
fn help_is_no_mistake() {
    assert_eq!(refusal("upgrade --help"), ErrorKind::DisplayHelp);
    assert_eq!(refusal("--version"), ErrorKind::DisplayVersion);
}

#[test]
fn every_answer_has_a_text() {
    insta::assert_snapshot!("text_status", samples::services().text(BLACK));
    insta::assert_snapshot!("text_status_wide", samples::services().text(WIDE));
    insta::assert_snapshot!("text_attached", samples::attached().text(BLACK));
    insta::assert_snapshot!("text_detached", samples::detached().text(BLACK));
    insta::assert_snapshot!("text_preview", samples::preview().text(BLACK));
    insta::assert_snapshot!("text_flows", samples::flows().text(BLACK));
    insta::assert_snapshot!("text_history", samples::history().text(BLACK));
    insta::assert_snapshot!("text_events", samples::events().text(BLACK));
    insta::assert_snapshot!("text_explanation", samples::explanation().text(BLACK));
}

#[test]
fn the_json_of_every_answer_is_stable() {
    insta::assert_json_snapshot!("json_agent", samples::agent());
    insta::assert_json_snapshot!("json_services", samples::services());
    insta::assert_json_snapshot!("json_attached", samples::attached());
    insta::assert_json_snapshot!("json_detached", samples::detached());
    insta::assert_json_snapshot!("json_preview", samples::preview());
    insta::assert_json_snapshot!("json_flows", samples::flows());
    insta::assert_json_snapshot!("json_history", samples::history());
    insta::assert_json_snapshot!("json_events", samples::events());
    insta::assert_json_snapshot!("json_explanation", samples::explanation());
}

#[test]
fn a_rollout_survives_being_written_and_read() {
    for view in samples::rollouts() {
        let text = serde_json::to_string(&view).unwrap();
        assert_eq!(serde_json::from_str::<agent_api::RolloutView>(&text).unwrap(), view);
    }
}
