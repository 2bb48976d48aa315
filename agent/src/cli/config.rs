//! The configuration file.
//!
//! What it says becomes the default of the option that has the key for its long name. So it is checked like what is typed,
//! shown in `--help`, and comes after the command line and the variables, all of it by the parser's own rules.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs::Metadata,
    io,
    os::{fd::AsFd, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use agent_api::{Problem, ProblemKind};
use clap::{Arg, CommandFactory, FromArgMatches, builder::Resettable};
use rustix::{
    fs::{FileType, Mode, OFlags, fstat, makedev, open},
    io::Errno,
};
use toml::{Table, Value};

use super::arguments::Cli;
use crate::host::bounded;

/// Read if there is one and no other is named.
const DEFAULT_FILE: &str = "/etc/agent.toml";

/// What a file says about every run is no place to say what this run is about.
const ONLY_TYPED: [&str; 9] =
    ["config", "help", "if-generation", "json", "listen", "name", "pid", "port", "version"];

/// Why nothing is run.
#[derive(Debug)]
pub enum Refused {
    /// The command line makes no sense, or asked for help only.
    CommandLine(Box<clap::Error>),
    /// The configuration file makes no sense.
    Configuration(Problem),
}

impl From<clap::Error> for Refused {
    fn from(error: clap::Error) -> Self {
        Self::CommandLine(Box::new(error))
    }
}

/// The parsed command line, completed from the configuration file.
pub(super) fn parse(arguments: &[OsString]) -> Result<Cli, Refused> {
    // Where the file is can be typed anywhere, so a first pass looks only for that. All else is complained about later,
    // when the defaults are known.
    let first = command().ignore_errors(true).try_get_matches_from(arguments)?;
    let named = first.try_get_one::<PathBuf>("config").ok().flatten();
    let table = read(named.map(PathBuf::as_path)).map_err(Refused::Configuration)?;
    completed(arguments, table)
}

/// What is understood, but for variables that are empty: units and scripts take them back so.
fn command() -> clap::Command {
    let is_empty = |name: &OsStr| env::var_os(name).is_some_and(|value| value.is_empty());
    Cli::command().mut_args(|arg| match arg.get_env() {
        Some(name) if is_empty(name) => arg.env(Resettable::Reset),
        Some(_) | None => arg,
    })
}

fn completed(arguments: &[OsString], table: Option<Table>) -> Result<Cli, Refused> {
    let mut command = command();
    if let Some(table) = table {
        command = with_defaults(command, table).map_err(Refused::Configuration)?;
    }
    let mut matches = command.clone().try_get_matches_from(arguments)?;
    Cli::from_arg_matches_mut(&mut matches)
        .map_err(|error| Refused::from(error.format(&mut command)))
}

fn read(named: Option<&Path>) -> Result<Option<Table>, Problem> {
    let path = named.unwrap_or(Path::new(DEFAULT_FILE));
    /// Bytes; what people write has a thousand.
    const MOST: u64 = 1 << 20;
    let failed = |error: io::Error| refuse(path, error.to_string());
    let place = match open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::NOENT) if named.is_none() => return Ok(None),
        place => place.map_err(|error| failed(error.into()))?,
    };
    if is_null_device(&place).map_err(failed)? {
        return Ok(None);
    }
    // A pipe or a device may have the command wait for ever.
    let file = bounded::reopen_regular(place).map_err(failed)?;
    if rustix::process::geteuid().is_root() {
        refuse_file_of_others(path, &file.metadata().map_err(failed)?)?;
    }
    table(path, bounded::whole(file, MOST).map_err(failed)?).map(Some)
}

/// Whether it is `/dev/null`, which is how people say that there is no file.
fn is_null_device(place: impl AsFd) -> io::Result<bool> {
    let known = fstat(place)?;
    let is_device = FileType::from_raw_mode(known.st_mode) == FileType::CharacterDevice;
    Ok(is_device && known.st_rdev == makedev(1, 3))
}

/// Whoever can write the file decides what is run as root, and where.
fn refuse_file_of_others(path: &Path, known: &Metadata) -> Result<(), Problem> {
    const OTHERS_WRITE: u32 = 0o022;
    const NOBODY: u32 = 65534;
    // In a user namespace it stands for all who are nobody in there: they cannot change it from there.
    let is_outside = known.uid() == NOBODY && !agent_terms::users::are_of_the_machine();
    let why = match known.uid() {
        0 if known.mode() & OTHERS_WRITE == 0 => return Ok(()),
        _ if is_outside && known.mode() & OTHERS_WRITE == 0 => return Ok(()),
        uid if uid != 0 && !is_outside => format!("it belongs to uid {uid}"),
        _ => "others may write it".to_owned(),
    };
    let shown = path.display();
    let message = format!("the configuration file `{shown}` cannot be trusted by root: {why}");
    let fix = format!("`chown root {shown}` and `chmod go-w {shown}`, once you have read it");
    Err(Problem::new(ProblemKind::Preflight, message).fix(fix))
}

fn table(path: &Path, bytes: Vec<u8>) -> Result<Table, Problem> {
    let text = String::from_utf8(bytes).map_err(|error| refuse(path, error.to_string()))?;
    text.parse().map_err(|error: toml::de::Error| refuse(path, error.to_string()))
}

fn refuse(path: &Path, cause: String) -> Problem {
    let message = format!("cannot read the configuration file `{}`", path.display());
    Problem { causes: vec![cause], ..Problem::new(ProblemKind::Usage, message) }
}

fn with_defaults(mut command: clap::Command, table: Table) -> Result<clap::Command, Problem> {
    for (key, value) in table {
        command = match value {
            Value::Table(section) => in_section(command, &key, section)?,
            value => with_default(command, None, &key, value)?,
        };
    }
    Ok(command)
}

fn in_section(
    command: clap::Command,
    name: &str,
    section: Table,
) -> Result<clap::Command, Problem> {
    let known = command.get_subcommands().any(|sub| sub.get_name() == name && !sub.is_hide_set());
    if !known {
        return Err(senseless(&format!("the section `[{name}]` is named after no command")));
    }
    let mut failure = None;
    let command = command.mut_subcommand(name, |mut sub| {
        for (key, value) in section {
            match with_default(sub.clone(), Some(name), &key, value) {
                Ok(changed) => sub = changed,
                Err(problem) => failure = Some(problem),
            }
        }
        sub
    });
    failure.map_or(Ok(command), Err)
}

fn with_default(
    command: clap::Command,
    section: Option<&str>,
    key: &str,
    value: Value,
) -> Result<clap::Command, Problem> {
    let place = section.map_or_else(|| "at the top".to_owned(), |name| format!("in `[{name}]`"));
    if ONLY_TYPED.contains(&key) {
        return Err(senseless(&format!("`{key}`, {place}, belongs on the command line")));
    }
    let known = |arg: &&Arg| arg.get_long() == Some(key) && !arg.is_hide_set();
    let Some(id) = command.get_arguments().find(known).map(Arg::get_id).cloned() else {
        return Err(senseless(&format!("the key `{key}`, {place}, is named after no option")));
    };
    let values = texts(value).ok_or_else(|| {
        senseless(&format!("the value of `{key}`, {place}, is no text, number or truth value"))
    })?;
    Ok(command.mut_arg(id, |arg| arg.default_values(values)))
}

/// The value as it would be typed; a list is an option that is given several times.
fn texts(value: Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(vec![text]),
        Value::Integer(number) => Some(vec![number.to_string()]),
        Value::Boolean(truth) => Some(vec![truth.to_string()]),
        Value::Array(values) => {
            values.into_iter().map(texts).collect::<Option<Vec<_>>>().map(|texts| texts.concat())
        }
        Value::Float(_) | Value::Datetime(_) | Value::Table(_) => None,
    }
}

fn senseless(message: &str) -> Problem {
    Problem::new(ProblemKind::Usage, format!("in the configuration file, {message}"))
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{PermissionsExt as _, chown},
        process,
        time::Duration,
    };

    use super::*;
    use crate::cli::arguments::{Command, Format};

    fn with_file(text: &str, arguments: &[&str]) -> Result<Cli, Refused> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("agent.toml");
        fs::write(&file, text).unwrap();
        let named = ["agent".into(), "--config".into(), file.into()];
        let typed = arguments.iter().map(OsString::from);
        parse(&named.into_iter().chain(typed).collect::<Vec<OsString>>())
    }

    fn complaint(text: &str) -> String {
        match with_file(text, &["status"]) {
            Err(Refused::Configuration(problem)) => {
                assert_eq!(problem.kind, ProblemKind::Usage);
                problem.message
            }
            other => panic!("expected a complaint, got {other:?}"),
        }
    }

    const FILE: &str = r#"
        runtime-dir = "/run/other"
        output = "jsonl"
        verbose = 2
        [upgrade]
        drain-timeout = "30m"
        drain-signal = 3
        env = ["A=1", "B=2"]
        dry-run = true
    "#;

    #[test]
    fn the_file_gives_defaults_and_what_is_typed_comes_first() {
        let cli =
            with_file(FILE, &["upgrade", "web", "--drain-signal", "INT", "--", "server"]).unwrap();
        assert_eq!(cli.global.runtime_dir, Path::new("/run/other"));
        assert_eq!(cli.global.output, Format::Jsonl);
        assert_eq!(cli.global.verbose, 2);
        let Command::Upgrade(upgrade) = cli.command else { panic!("not an upgrade") };
        assert_eq!(upgrade.drain.drain_timeout, Duration::from_secs(1800));
        assert_eq!(upgrade.drain.drain_signal.number(), 2);
        assert_eq!(upgrade.drain.stop_timeout, Duration::from_secs(10));
        assert_eq!(upgrade.launch.environment.len(), 2);
        assert!(upgrade.dry_run);
    }

    #[test]
    fn a_global_option_comes_first_wherever_it_is_typed() {
        for arguments in [["--output=wide", "status"], ["status", "--output=wide"]] {
            assert_eq!(with_file(FILE, &arguments).unwrap().global.output, Format::Wide);
        }
    }

    #[test]
    fn launch_defaults_do_not_stand_in_the_way_of_a_started_server() {
        assert!(with_file(FILE, &["upgrade", "web", "--pid", "7"]).is_ok());
    }

    #[test]
    fn what_the_file_cannot_say_is_complained_about() {
        assert!(complaint("colour = 1").contains("`colour`, at the top, is named after no option"));
        assert!(complaint("[upgrade]\nport = 80").contains("belongs on the command line"));
        assert!(complaint("[launch]").contains("`[launch]` is named after no command"));
        assert!(complaint("output = 1.5").contains("no text, number or truth value"));
        assert!(complaint("output =").contains("cannot read the configuration file"));
    }

    #[test]
    fn a_value_of_the_file_is_checked_like_one_that_is_typed() {
        let refused = with_file("[upgrade]\ntimeout = \"soon\"", &["upgrade", "web", "--pid", "7"]);
        assert!(matches!(refused, Err(Refused::CommandLine(error)) if error.exit_code() == 2));
    }

    #[test]
    fn a_file_that_is_named_must_be_there() {
        let refused = parse(&["agent".into(), "--config=/nonexistent".into(), "status".into()]);
        assert!(matches!(refused, Err(Refused::Configuration(_))));
    }

    fn refused(file: &Path) -> Problem {
        let named: [OsString; 4] =
            ["agent".into(), "--config".into(), file.into(), "status".into()];
        match parse(&named) {
            Err(Refused::Configuration(problem)) => problem,
            other => panic!("expected a refusal, got {other:?}"),
        }
    }

    #[test]
    fn what_may_never_end_is_no_configuration() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo");
        assert!(process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        for place in [&fifo, Path::new("/dev/zero"), directory.path()] {
            let problem = refused(place);
            assert_eq!(problem.kind, ProblemKind::Usage);
            assert_eq!(problem.causes, ["it is no regular file"]);
        }
    }

    #[test]
    fn a_file_that_an_ordinary_user_can_write_does_not_steer_root() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        for (uid, mode, why) in [
            (1000, 0o644, "belongs to uid 1000"),
            (0, 0o664, "others may write it"),
            (0, 0o646, "others may write it"),
        ] {
            chown(file.path(), Some(uid), None).unwrap();
            fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
            let problem = refused(file.path());
            assert_eq!(problem.kind, ProblemKind::Preflight);
            assert!(problem.message.contains(why), "{problem:?}");
            assert!(problem.fix.unwrap().contains("chown root"));
        }
    }
}

#[cfg(test)]
mod fuzz {
    use super::*;
    use crate::fuzzing::{
        Verdict, fuzz,
        mutate::{Bytes, mutated},
    };

    const EXAMPLES: [&str; 3] = [
        "runtime-dir = \"/run/other\"\noutput = \"jsonl\"\nverbose = 2\n",
        "# Patient\n[upgrade]\ndrain-timeout = \"30m\"\ndrain-signal = 3\nenv = [\"A=1\", \"B=2\"]\ndry-run = true\n",
        "color = 'never'\n[status]\nwatch = false\n[load]\nrate = 100\nduration = \"2s\"\n[daemon]\nreplace = false\n",
    ];

    /// Sections, and keys with one value and another.
    fn words() -> Vec<String> {
        const VALUES: [&str; 11] = [
            "true",
            "1",
            "\"\"",
            "[]",
            "[[1]]",
            "{a = 1}",
            "1979-05-27",
            "inf",
            "-1",
            "\"5m\"",
            "[\"A=1\"]",
        ];
        let command = Cli::command();
        let sections = command.get_subcommands().map(|it| format!("\n[{}]\n", it.get_name()));
        let all = std::iter::once(&command).chain(command.get_subcommands());
        let keys = all.flat_map(|it| it.get_arguments().filter_map(Arg::get_long)).enumerate();
        let settings = keys.flat_map(|(which, key)| {
            let values = VALUES.iter().cycle().skip(which).step_by(3).take(3);
            values.map(move |value| format!("\n{key} = {value}\n"))
        });
        sections.chain(settings).collect()
    }

    fn judge(text: &Bytes) -> Verdict {
        let Ok(table) = table(Path::new("agent.toml"), text.as_ref().to_vec()) else {
            return Verdict::Refused;
        };
        let lines = ["status", "upgrade web -- server", "attach --port 80", "load localhost:80"];
        let parse = |line: &str| {
            let words = std::iter::once("agent").chain(line.split(' ')).map(OsString::from);
            completed(&words.collect::<Vec<_>>(), Some(table.clone()))
        };
        let parsed = lines.map(|line| {
            let parsed = parse(line);
            if let Err(Refused::CommandLine(error)) = &parsed {
                assert!(!error.to_string().is_empty());
            }
            parsed.is_ok()
        });
        if parsed.contains(&true) { Verdict::Taken } else { Verdict::Refused }
    }

    #[test]
    fn no_file_breaks_the_command_line() {
        let words = words();
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let examples = EXAMPLES.map(|it| it.as_bytes().to_vec()).to_vec();
        fuzz("configuration", &mutated(examples, &words), judge);
    }
}
