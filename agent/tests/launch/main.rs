//! A launched server gets exactly what it was promised, and a launch that fails says at which step.
//!
//! The launches are real: this program starts itself as the trampoline, which is why it has its own
//! main function. The servers are shell scripts that print what they see to the log.

mod container;
mod report;
mod surroundings;

use std::{
    ffi::OsString,
    fs,
    net::TcpListener,
    os::{
        fd::AsFd,
        unix::{fs::MetadataExt, process::CommandExt},
    },
    path::Path,
    process::{Command, ExitCode},
};

use agent::host::{
    cgroup::Hierarchy,
    context::{Context, Namespace},
    launch::{Here, LaunchError, LaunchSpec, Step, TRAMPOLINE_ARGUMENT, launch, trampoline},
    limit::{Limit, Resource},
    process::Pid,
};
use anyhow::{Context as _, Result, bail, ensure};

use self::{
    container::Container,
    report::{failure, launched},
    surroundings::Surroundings,
};

fn main() -> Result<ExitCode> {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let [command, descriptor] = arguments.as_slice()
        && command == TRAMPOLINE_ARGUMENT
    {
        let descriptor =
            descriptor.to_str().and_then(|text| text.parse().ok()).context("no descriptor")?;
        return Ok(trampoline(descriptor));
    }
    if arguments.iter().any(|argument| argument == "--list") {
        let ignored_only = arguments.iter().any(|argument| argument == "--ignored");
        TESTS.iter().filter(|_| !ignored_only).for_each(|(name, _)| println!("{name}: test"));
        return Ok(ExitCode::SUCCESS);
    }
    if std::env::var_os(PREPARED).is_none() {
        return Err(run_again_with_odd_inheritance(&arguments));
    }
    run_tests(&arguments)
}

/// This program is the trampoline.
fn us() -> Here<'static> {
    Here(Path::new("/proc/self/exe"))
}

type Test = fn(&Surroundings) -> Result<()>;

const TESTS: [(&str, Test); 6] = [
    ("the_server_gets_user_directory_limits_and_group_as_asked", the_server_gets_what_was_asked),
    ("the_environment_is_exactly_the_given_one", the_environment_is_exactly_the_given_one),
    ("no_descriptor_and_no_signal_setting_leaks", no_descriptor_and_no_signal_setting_leaks),
    ("sockets_are_passed_by_the_usual_convention", sockets_are_passed_by_the_usual_convention),
    (
        "a_failed_step_is_named_and_leaves_nothing_behind",
        a_failed_step_is_named_and_leaves_nothing_behind,
    ),
    (
        "the_server_joins_the_namespaces_of_the_old_one",
        the_server_joins_the_namespaces_of_the_old_one,
    ),
];

/// Set once this program ignores a signal and has inherited a descriptor that nothing closes by
/// itself.
const PREPARED: &str = "LAUNCH_TEST_PREPARED";

/// Becomes itself once more, as if started by `nohup` from a shell with a stray descriptor.
fn run_again_with_odd_inheritance(arguments: &[OsString]) -> anyhow::Error {
    let exe = match std::env::current_exe() {
        Ok(exe) => exe,
        Err(error) => return error.into(),
    };
    let script = "trap '' HUP USR1; exec 9</dev/null; exec \"$0\" \"$@\"";
    Command::new("sh")
        .args(["-c", script])
        .arg(exe)
        .args(arguments)
        .env(PREPARED, "1")
        .exec()
        .into()
}

/// Runs the tests whose name contains one of the arguments; all if there are none.
fn run_tests(arguments: &[OsString]) -> Result<ExitCode> {
    let wanted: Vec<&str> = arguments
        .iter()
        .filter_map(|argument| argument.to_str())
        .filter(|text| !text.starts_with('-'))
        .collect();
    if !rustix::process::geteuid().is_root() {
        println!("skipped: launching as another user needs root");
        return Ok(ExitCode::SUCCESS);
    }
    let hierarchy = match Hierarchy::find() {
        Ok(hierarchy) => hierarchy,
        Err(error) => {
            println!("skipped: {error}");
            return Ok(ExitCode::SUCCESS);
        }
    };
    let mut failed = false;
    for (name, test) in TESTS
        .iter()
        .filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|text| name.contains(text)))
    {
        let outcome =
            Surroundings::new(&hierarchy, name).and_then(|surroundings| test(&surroundings));
        match &outcome {
            Ok(()) => println!("test {name} ... ok"),
            Err(error) => println!("test {name} ... FAILED\n{error:?}"),
        }
        failed |= outcome.is_err();
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn expect_lines(printed: &str, expected: &[&str]) -> Result<()> {
    let lines: Vec<&str> = printed.lines().collect();
    ensure!(lines == expected, "got {lines:#?}, expected {expected:#?}");
    Ok(())
}

fn the_server_gets_what_was_asked(surroundings: &Surroundings) -> Result<()> {
    let script = "id -u; id -g; id -G; pwd; ulimit -n; ulimit -Hn; umask; cat /proc/$$/oom_score_adj; nice; \
                  sed -n 's/^0:://p' /proc/$$/cgroup; echo $0; \
                  read -r pid name state parent group session rest </proc/$$/stat; [ $session = $$ ] && echo leader; \
                  echo error >&2";
    let mut spec = surroundings.spec(script)?;
    let nofile = Limit { resource: Resource::Nofile, soft: Some(321), hard: Some(654) };
    spec.context.uid = 65534;
    spec.context.gid = 65533;
    spec.context.groups = vec![65533, 1234];
    spec.context.working_directory = surroundings.path().into();
    spec.context.limits.retain(|limit| limit.resource != Resource::Nofile);
    spec.context.limits.push(nofile);
    spec.context.umask = 0o027;
    spec.context.oom_score_adj = 77;
    spec.context.nice = 5;
    spec.argument_zero = Some("my server".into());
    // `$0` is the word after the script, so the shell's own name shows only in its command line.
    spec.arguments.push("word".into());
    let launched = launched(launch(&us(), &spec, &[])?)?;
    let printed = surroundings.printed_by(&launched)?;
    let name = surroundings
        .cgroup
        .directory()
        .file_name()
        .and_then(|name| name.to_str())
        .context("a name")?;
    let cgroup = format!("/{name}");
    let directory = surroundings.path().canonicalize()?;
    let directory = directory.to_str().context("a readable path")?;
    let expected = [
        "65534",
        "65533",
        "65533 1234",
        directory,
        "321",
        "654",
        "0027",
        "77",
        "5",
        &cgroup,
        "word",
        "leader",
        "error",
    ];
    expect_lines(&printed, &expected)?;
    let log = fs::metadata(surroundings.log())?;
    // Who opens its own output by name (`/dev/stdout`) needs the right to.
    // Nobody gets to it by its path, and no owner can keep us from it.
    ensure!(
        (log.mode() & 0o777, log.uid()) == (0o666, 0),
        "the log is ours, and open to who has it"
    );
    Ok(())
}

fn the_environment_is_exactly_the_given_one(surroundings: &Surroundings) -> Result<()> {
    let mut spec = surroundings.spec("")?;
    spec.program = "/usr/bin/env".into();
    spec.arguments.clear();
    spec.context.environment = vec![("A".into(), "1 2".into()), ("B".into(), "x=y".into())];
    expect_lines(&surroundings.printed(&spec)?, &["A=1 2", "B=x=y"])?;
    // Appended to, not replaced: an earlier generation may still write to it.
    expect_lines(&surroundings.printed(&spec)?, &["A=1 2", "B=x=y", "A=1 2", "B=x=y"])
}

fn no_descriptor_and_no_signal_setting_leaks(surroundings: &Surroundings) -> Result<()> {
    let ours = fs::read_to_string("/proc/self/status")?;
    ensure!(
        signals(&ours, "SigIgn")? & HANGUP != 0,
        "this test must ignore signals to prove anything"
    );
    ensure!(
        Path::new("/proc/self/fd/9").exists(),
        "this test must have an inherited descriptor to prove anything"
    );
    let mut spec = surroundings.spec("")?;
    spec.program = "/bin/cat".into();
    spec.arguments = vec!["/proc/self/status".into()];
    let status = surroundings.printed(&spec)?;
    for field in ["SigIgn", "SigBlk", "SigCgt"] {
        ensure!(signals(&status, field)? == 0, "{field} in {status}");
    }
    fs::remove_file(surroundings.log())?;
    let spec = surroundings
        .spec("ls /proc/$$/fd; readlink /proc/$$/fd/0; readlink /proc/$$/fd/1 /proc/$$/fd/2")?;
    let log = surroundings.log().canonicalize().unwrap_or_else(|_error| surroundings.log());
    let log = log.to_str().context("a readable path")?;
    expect_lines(&surroundings.printed(&spec)?, &["0", "1", "2", "/dev/null", log, log])
}

/// A set of signals in `/proc/PID/status`, but for 32 and 33: those belong to the C library, which
/// sets them as it needs and lets nobody else do so.
fn signals(status: &str, field: &str) -> Result<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(":\t"))
        .context("the field")?;
    Ok(u64::from_str_radix(line, 16)? & !(0b11 << 31))
}

/// The bit of `SIGHUP`.
const HANGUP: u64 = 1;

fn sockets_are_passed_by_the_usual_convention(surroundings: &Surroundings) -> Result<()> {
    let sockets = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
    let script = "[ $LISTEN_PID = $$ ] && echo mine; echo $LISTEN_FDS $LISTEN_FDNAMES; ls /proc/$$/fd | tr '\\n' ' '; echo; \
                  readlink /proc/$$/fd/3 /proc/$$/fd/4";
    let mut spec = surroundings.spec(script)?;
    spec.socket_names = vec!["web".to_owned(), "admin".to_owned()];
    ensure!(matches!(
        launch(&us(), &spec, &[]),
        Err(LaunchError::SocketNames { got: 2, expected: 0 })
    ));
    let launched = launched(launch(&us(), &spec, &[sockets[0].as_fd(), sockets[1].as_fd()])?)?;
    let printed = surroundings.printed_by(&launched)?;
    let inode = |socket: &TcpListener| {
        rustix::fs::fstat(socket).map(|stat| format!("socket:[{}]", stat.st_ino))
    };
    let inodes = [inode(&sockets[0])?, inode(&sockets[1])?];
    expect_lines(&printed, &["mine", "2 web:admin", "0 1 2 3 4 ", &inodes[0], &inodes[1]])
}

fn a_failed_step_is_named_and_leaves_nothing_behind(surroundings: &Surroundings) -> Result<()> {
    let good = surroundings.spec("sleep 60")?;
    let text = surroundings.path().join("text");
    fs::write(&text, "")?;

    let spec = LaunchSpec { program: "/no/such/server".into(), ..good.clone() };
    let error = failure(launch(&us(), &spec, &[]))?;
    ensure!(matches!(error, LaunchError::ProgramNotFound { .. }), "{error:?}");

    let spec = LaunchSpec { program: text.into(), ..good.clone() };
    let error = failure(launch(&us(), &spec, &[]))?;
    ensure!(matches!(error, LaunchError::ProgramNotPermitted { .. }), "{error:?}");

    let mut spec = good.clone();
    spec.context.working_directory = "/no/such/directory".into();
    expect_failed_step(&spec, Step::ChangeDirectory)?;
    let spec = LaunchSpec { cgroup: "/no/such/group".into(), ..good.clone() };
    expect_failed_step(&spec, Step::JoinCgroup)?;
    let mut spec = good.clone();
    spec.context.limits = vec![Limit { resource: Resource::Nofile, soft: Some(2), hard: Some(1) }];
    expect_failed_step(&spec, Step::SetLimit)?;

    let spec = LaunchSpec { log: Some("/no/such/directory/log".into()), ..good.clone() };
    let error = failure(launch(&us(), &spec, &[]))?;
    ensure!(matches!(error, LaunchError::Log { .. }), "{error:?}");

    let error = failure(launch(&Here(Path::new("/bin/true")), &good, &[]))?;
    ensure!(matches!(error, LaunchError::Silent), "{error:?}");
    let error = failure(launch(&Here(Path::new("/no/trampoline")), &good, &[]))?;
    ensure!(matches!(error, LaunchError::Start { .. }), "{error:?}");

    ensure!(!surroundings.cgroup.is_populated()?, "a failed launch left a process");
    let children = fs::read_to_string(format!("/proc/self/task/{}/children", std::process::id()))?;
    ensure!(children.is_empty(), "a failed launch left a zombie: {children}");
    Ok(())
}

fn expect_failed_step(spec: &LaunchSpec, expected: Step) -> Result<()> {
    match failure(launch(&us(), spec, &[]))? {
        LaunchError::Failed { step, .. } if step == expected => Ok(()),
        other => bail!("got {other:?}, expected a failure to {expected}"),
    }
}

fn the_server_joins_the_namespaces_of_the_old_one(surroundings: &Surroundings) -> Result<()> {
    let plain = [Namespace::Mount, Namespace::Pid, Namespace::Uts];
    let with_user = [Namespace::Mount, Namespace::Pid, Namespace::Uts, Namespace::User];
    for (options, expected) in
        [([].as_slice(), plain.as_slice()), (&["--user", "--map-root-user"], &with_user)]
    {
        let container = Container::start(options)?;
        let mut spec =
            surroundings.spec("hostname; id -u; [ $$ -lt 100 ] && echo small; read line <&3")?;
        let context = Context::of(container.inside.pid(), Pid::ours())?;
        ensure!(
            context.namespaces == expected,
            "got {:?}, expected {expected:?}",
            context.namespaces
        );
        spec.context.namespaces = context.namespaces;
        spec.namespaces_of = Some(container.inside.identity());
        // The server waits on the passed socket, so that its namespaces can be looked at.
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        spec.socket_names = vec!["gate".to_owned()];
        let launched = launched(launch(&us(), &spec, &[theirs.as_fd()])?)?;
        drop(theirs);
        for namespace in Namespace::ALL {
            let link =
                |pid: Pid| fs::read_link(format!("/proc/{pid}/ns/{}", namespace.file_name()));
            let (new, old) = (link(launched.pid())?, link(container.inside.pid())?);
            ensure!(new == old, "{namespace:?}: got {new:?}, expected {old:?}");
        }
        std::io::Write::write_all(&mut &ours, b"go\n")?;
        let printed = surroundings.printed_by(&launched)?;
        expect_lines(&printed, &["elsewhere", "0", "small"])?;
        fs::remove_file(surroundings.log())?;
    }
    Ok(())
}
