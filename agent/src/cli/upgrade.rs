//! `agent upgrade`.

use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
};

use agent_api::{
    Command, ExitCode, NamespacesOf, NewGeneration, Problem, ProblemKind, Unchanged, UpgradeAnswer,
    UpgradePreview, UpgradeRequest,
};
use agent_rollout::Readiness;
use agent_terms::GenerationNumber;

use super::{
    Context,
    arguments::{LaunchOptions, Namespaces, NewServer, Ready, UpgradeArguments, Variable},
    drain, follow,
    output::{Answer, Look},
    persist, program, words,
};

/// Brings a new generation in, and waits as far as asked.
pub(super) async fn run(
    context: &Context,
    arguments: &UpgradeArguments,
) -> Result<ExitCode, Problem> {
    let service = arguments.service.selected();
    // An empty variable of a script is no wish for a restart.
    if env::args_os().next_back().is_some_and(|last| last == "--") {
        let problem = Problem::new(ProblemKind::Usage, "there is no command after `--`");
        return Err(problem.fix("name one; without `--` the running one's is launched again"));
    }
    let here = env::current_dir().map_err(|error| {
        Problem::new(
            ProblemKind::Usage,
            "the directory from which this is asked for is gone, or may not be entered",
        )
        .because(&error)
        .fix("`cd` to one that is there")
    })?;
    let request =
        UpgradeRequest { request: Some(persist::new_id()?), ..request(arguments, &here)? };
    match persist::ask(&context.console, async || context.client.upgrade(&service, &request).await)
        .await?
    {
        UpgradeAnswer::WouldDo(preview) => {
            context.console.warn_of(&preview.warnings);
            context.console.answer(&preview)?;
            Ok(ExitCode::Done)
        }
        UpgradeAnswer::Serves(unchanged) => {
            context.console.answer(&unchanged)?;
            Ok(ExitCode::Done)
        }
        UpgradeAnswer::Begun(begun) => {
            context.console.warn_of(&begun.warnings);
            if !begun.changed {
                context.console.note(&format!(
                    "rollout {} brings this release already: nothing was begun anew",
                    begun.rollout.id
                ));
            }
            if arguments.dry_run {
                context.console.answer(begun.as_ref())?;
                return Ok(ExitCode::Done);
            }
            follow::to_the_end(context, *begun, arguments.wait).await
        }
    }
}

/// What is asked for by one who is in this directory.
fn request(arguments: &UpgradeArguments, here: &Path) -> Result<UpgradeRequest, Problem> {
    let UpgradeArguments {
        service: _,
        new,
        release,
        wait: _,
        ready,
        timeout,
        settle,
        if_generation,
        also,
        dry_run,
        launch,
        drain,
    } = arguments;
    Ok(UpgradeRequest {
        new: new_generation(new, launch, here)?,
        release: release.clone(),
        ready: match ready {
            Ready::Listen => Readiness::Listen,
            Ready::Accept => Readiness::Accept,
        },
        ready_timeout: *timeout,
        settle: *settle,
        drain: drain::request(drain)?,
        if_generation: if_generation.map(GenerationNumber),
        also: *also,
        dry_run: *dry_run,
        request: None,
    })
}

fn new_generation(
    new: &NewServer,
    launch: &LaunchOptions,
    here: &Path,
) -> Result<NewGeneration, Problem> {
    let NewServer { command, pid, listen } = new;
    match (pid, listen, command.first()) {
        (Some(pid), _, _) => Ok(NewGeneration::Process(*pid)),
        (None, Some(port), _) => Ok(NewGeneration::Listening(*port)),
        (None, None, Some(name)) => Ok(NewGeneration::Launch(Box::new(Command {
            program: Some(program::resolve(name, here, env::var_os("PATH").as_deref())?),
            ..launched(command, launch, here)
        }))),
        (None, None, None) => Ok(NewGeneration::Launch(Box::new(launched(&[], launch, here)))),
    }
}

fn launched(command: &[String], launch: &LaunchOptions, here: &Path) -> Command {
    let LaunchOptions {
        user,
        group,
        working_directory,
        environment,
        clear_environment,
        limits,
        namespaces,
        unconfined,
    } = launch;
    let mut set = BTreeMap::new();
    let mut without = Vec::new();
    for variable in environment.iter().cloned() {
        match variable {
            Variable::Set { name, value } => drop(set.insert(name, value)),
            Variable::Unset { name } => without.push(name),
        }
    }
    Command {
        program: None,
        arguments: command.to_vec(),
        working_directory: working_directory.as_ref().map(|directory| tidy(&here.join(directory))),
        user: user.clone(),
        group: group.clone(),
        environment: set,
        without,
        clear_environment: *clear_environment,
        limits: limits.clone(),
        namespaces: match namespaces {
            None | Some(Namespaces::Replaced) => NamespacesOf::Replaced,
            Some(Namespaces::Agent) => NamespacesOf::Agent,
        },
        unconfined: unconfined.clone(),
        called_from: Some(here.to_owned()),
    }
}

/// Without the `.` that stands for where it is typed.
fn tidy(directory: &Path) -> PathBuf {
    directory.components().collect()
}

impl Answer for Unchanged {
    fn text(&self, _look: Look) -> String {
        let Self { schema: _, changed: _, service, generation, release } = self;
        format!(
            "{service}: generation {generation} is release {release} and serves, nothing was changed\n"
        )
    }
}

impl Answer for UpgradePreview {
    fn text(&self, _look: Look) -> String {
        let Self { schema: _, from, to, steps, warnings: _ } = self;
        let mut text = format!("generation {to} would replace generation {from}:\n");
        for (number, step) in (1..).zip(steps) {
            text.push_str(&format!("  {number}. {}\n", words::line(step)));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsString, path::PathBuf};

    use super::*;
    use crate::cli::{self, Cli};

    fn asked(arguments: &[&str]) -> Result<UpgradeRequest, Problem> {
        let typed = ["agent", "--config=/dev/null", "upgrade", "web"].iter().chain(arguments);
        let cli = Cli::read(typed.map(OsString::from)).unwrap();
        let cli::Command::Upgrade(arguments) = &cli.command else { panic!("not an upgrade") };
        request(arguments, Path::new("/bin"))
    }

    #[test]
    fn what_is_typed_is_what_is_asked_for() {
        let typed = "--ready listen --timeout 5s --settle 1s --drain graceful --drain-signal QUIT --drain-timeout 30m --if-generation 3 \
                     --user www --group 33 --cwd ./data --env A=1 --env B=2 --env C- --clear-env --limit nofile=4096 --namespaces agent --unconfined seccomp \
                     -- ./sh -c exit";
        let request = asked(&typed.split_whitespace().collect::<Vec<_>>()).unwrap();
        insta::assert_json_snapshot!(request);
    }

    #[test]
    fn a_started_server_is_named_by_process_or_port() {
        assert_eq!(asked(&["--pid", "7"]).unwrap().new, NewGeneration::Process(7));
        assert_eq!(asked(&["--listen", "9090"]).unwrap().new, NewGeneration::Listening(9090));
    }

    #[test]
    fn a_program_is_looked_up_before_anything_is_asked_for() {
        let problem = asked(&["--", "./absent"]).unwrap_err();
        assert_eq!(problem.kind.exit_code(), ExitCode::Preflight);
        let NewGeneration::Launch(command) = asked(&["--", "./sh"]).unwrap().new else {
            panic!("not launched")
        };
        assert_eq!(command.program, Some(PathBuf::from("/bin/./sh")));
        assert_eq!(command.arguments, ["./sh"]);
    }
}
