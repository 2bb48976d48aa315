//! `agent manual`: a manual page per command.

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use agent_api::{ExitCode, Problem, ProblemKind};
use clap::CommandFactory;
use clap_mangen::Man;

use super::arguments::Cli;

/// Writes all pages into a folder, which is made if it is missing.
pub(super) fn run(directory: &Path) -> Result<ExitCode, Problem> {
    write(directory).map_err(|error| {
        let message = format!("cannot write the manual to `{}`", directory.display());
        Problem::new(ProblemKind::Failed, message).because(&error)
    })?;
    Ok(ExitCode::Done)
}

fn write(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let of_commands = command.get_subcommands().filter(|command| !command.is_hide_set());
    for command in of_commands.chain([&command]) {
        let man = Man::new(command.clone()).source(concat!("agent ", env!("CARGO_PKG_VERSION")));
        let mut page = Vec::new();
        render(&man, command, &mut page)?;
        fs::write(directory.join(man.get_filename()), page)?;
    }
    Ok(())
}

fn render(man: &Man, command: &clap::Command, page: &mut Vec<u8>) -> io::Result<()> {
    man.render_title(page)?;
    man.render_name_section(page)?;
    man.render_synopsis_section(page)?;
    man.render_description_section(page)?;
    man.render_options_section(page)?;
    if command.get_subcommands().any(|sub| !sub.is_hide_set()) {
        man.render_subcommands_section(page)?;
    }
    exit_status(page)?;
    if command.get_after_long_help().is_some() {
        let mut extra = Vec::new();
        man.render_extra_section(&mut extra)?;
        // What comes after the help is examples, and nothing else.
        let extra = String::from_utf8_lossy(&extra).replacen(".SH EXTRA", ".SH EXAMPLES", 1);
        page.extend_from_slice(extra.as_bytes());
    }
    Ok(())
}

fn exit_status(page: &mut Vec<u8>) -> io::Result<()> {
    writeln!(page, ".SH \"EXIT STATUS\"")?;
    for code in CODES {
        writeln!(page, ".TP\n\\fB{}\\fR\n{}", code as u8, meaning(code))?;
    }
    Ok(())
}

const CODES: [ExitCode; 12] = [
    ExitCode::Done,
    ExitCode::Failed,
    ExitCode::Usage,
    ExitCode::NotFound,
    ExitCode::Preflight,
    ExitCode::NotReady,
    ExitCode::FlowsCut,
    ExitCode::Locked,
    ExitCode::RolledBack,
    ExitCode::RollingOut,
    ExitCode::Degraded,
    ExitCode::Interrupted,
];

const fn meaning(code: ExitCode) -> &'static str {
    match code {
        ExitCode::Done => "Done, or already so.",
        ExitCode::Failed => "Failed at run time.",
        ExitCode::Usage => "The command line or the configuration file makes no sense.",
        ExitCode::NotFound => "No such service, not attached, or no agent is running.",
        ExitCode::Preflight => {
            "Something that is needed is missing: a permission, a kernel feature, a mount, a program, a generation to go \
             back to. The message says how to get it. Nothing was changed."
        }
        ExitCode::NotReady => "The new generation did not become ready: the old one still serves.",
        ExitCode::FlowsCut => {
            "Switched, but connections ended with the old generation: the time to drain was up, it died, or it was killed \
             and does not end."
        }
        ExitCode::Locked => {
            "Another change is under way, or the generation was not the expected one."
        }
        ExitCode::RolledBack => "Rolled back after the switch.",
        ExitCode::RollingOut => "With --exit-code: a rollout is under way.",
        ExitCode::Degraded => {
            "With --exit-code: a service has no live generation, or steering falls back."
        }
        ExitCode::Interrupted => "Interrupted while waiting: what was begun goes on.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_has_a_page_that_says_how_it_ends() {
        let directory = tempfile::tempdir().unwrap();
        run(directory.path()).unwrap();
        let mut names = Vec::new();
        for page in fs::read_dir(directory.path()).unwrap() {
            let page = page.unwrap();
            names.push(page.file_name().into_string().unwrap());
            let text = fs::read_to_string(page.path()).unwrap();
            for section in ["NAME", "SYNOPSIS", "\"EXIT STATUS\"", "GLOBAL OPTIONS"] {
                assert!(text.contains(section), "{names:?} lacks {section}");
            }
            assert!(!text.contains(".SH EXTRA"));
        }
        names.sort();
        insta::assert_snapshot!(names.join("\n"));
    }

    #[test]
    fn exit_codes_are_listed_in_order_and_with_their_numbers() {
        let numbers = CODES.map(|code| code as u8);
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 130]);
    }
}
