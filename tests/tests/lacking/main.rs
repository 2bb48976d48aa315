//! Machines on which the agent cannot run: `attach`, `daemon` and `doctor` say why, and leave nothing behind.

mod deep;
mod filters;
mod later;
mod machines;
mod pids;

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use nix::libc;
use tests::servers::Script;
use tests::stage::Stage;

use self::machines::{Lacking, MACHINES};
use self::pids::Pids;

const PORT: u16 = 8080;

/// Has the kernel answer a system call, or one with a certain first argument (`NUMBER:ARGUMENT`), with something, as containers do,
/// and executes what follows.
const FILTER: &str = "import ctypes, os, struct, sys
call, answer = sys.argv[1], int(sys.argv[2], 0)
number, _, argument = call.partition(':')
code = [(0x20, 0, 0, 0), (0x15, 0, 1, int(number)), (6, 0, 0, answer), (6, 0, 0, 0x7fff0000)]
if argument:
    code[1:2] = [(0x15, 0, 3, int(number)), (0x20, 0, 0, 16), (0x15, 0, 1, int(argument))]
code = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *it) for it in code))
program = ctypes.create_string_buffer(struct.pack('HxxxxxxQ', len(code) // 8, ctypes.addressof(code)))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program) == 0
os.execvp(sys.argv[3], sys.argv[3:])";

const CALLS: [(&str, libc::c_long); 20] = [
    ("BPF", libc::SYS_bpf),
    ("PIDFD_OPEN", libc::SYS_pidfd_open),
    ("CLONE3", libc::SYS_clone3),
    ("PRLIMIT64", libc::SYS_prlimit64),
    ("STATFS", libc::SYS_statfs),
    ("STATX", libc::SYS_statx),
    ("SOCKET", libc::SYS_socket),
    ("GETSOCKOPT", libc::SYS_getsockopt),
    ("SETSOCKOPT", libc::SYS_setsockopt),
    ("ACCEPT4", libc::SYS_accept4),
    ("EPOLL_CTL", libc::SYS_epoll_ctl),
    ("UNSHARE", libc::SYS_unshare),
    ("MOUNT", libc::SYS_mount),
    ("SOCKETPAIR", libc::SYS_socketpair),
    ("PRCTL", libc::SYS_prctl),
    ("SETRESUID", libc::SYS_setresuid),
    ("SCHED_SETATTR", libc::SYS_sched_setattr),
    ("MEMFD_CREATE", libc::SYS_memfd_create),
    ("INOTIFY_INIT1", libc::SYS_inotify_init1),
    ("INOTIFY_ADD_WATCH", libc::SYS_inotify_add_watch),
];

/// Runs a command of the agent on such a machine: its exit code and what it says, and what is left of the agent when it has ended.
fn run(
    stage: &Stage,
    prepare: &str,
    wrapper: &str,
    arguments: &str,
) -> Result<(Option<i32>, String)> {
    let (run, pins) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let script = format!(
        "set -e; mount --make-rprivate /; RUN={run} PINS={pins} GROUP={group}
         DIR=$RUN/above/agent PIN=$PINS/agent; {prepare}
         mountpoint -q $PINS || mount -t bpf none $PINS
         PLACES=\"--runtime-dir $DIR --pin-dir $PIN --cgroup $GROUP\"
         set +e; timeout 30 {wrapper} {agent} $PLACES {arguments}; code=$?
         for left in $RUN/above $PINS/a* $GROUP; do test -d $left && echo left behind: $left; done
         ended=$({agent} $PLACES detach --port 8080 2>&1)
         test {group} = $GROUP || rmdir ${{GROUP%/*}} 2> /dev/null; exit $code",
        run = run.path().display(),
        pins = pins.path().display(),
        agent = stage.agent.binary().display(),
        group = stage.agent.cgroup().display(),
    );
    let mut alone = Command::new("unshare");
    alone.args(["--mount", "bash", "-c", &script]).env("FILTER", FILTER);
    alone.envs(CALLS.map(|(name, call)| (name, call.to_string())));
    alone.envs(
        [("EPERM", libc::EPERM), ("ENOSYS", libc::ENOSYS), ("EINVAL", libc::EINVAL)].map(answered),
    );
    alone.envs(
        [("EMFILE", libc::EMFILE), ("ENOSPC", libc::ENOSPC), ("ENOMEM", libc::ENOMEM)]
            .map(answered),
    );
    alone.envs([("EAFNOSUPPORT", libc::EAFNOSUPPORT)].map(answered)).env("KILL", "0x80000000");
    let output = stage.namespace.output(&mut alone)?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.code(), String::from_utf8_lossy(&said).into_owned()))
}

/// What a filter says that has a call answered with this (`SECCOMP_RET_ERRNO`).
fn answered((name, errno): (&'static str, i32)) -> (&'static str, String) {
    (name, (0x50000 | errno).to_string())
}

#[test]
fn each_lack_is_told_in_one_line_with_what_to_do_and_nothing_is_left() -> Result<()> {
    let server = Script::new(PORT)?;
    let stage = Stage::new()?;
    let _first = stage.start(&server, 1)?;
    let wrong: Vec<_> =
        MACHINES.iter().filter_map(|machine| is_told(&stage, machine).err()).collect();
    ensure!(wrong.is_empty(), "{wrong:#?}");
    assert!(!stage.agent.cgroup().exists(), "a control group is left");
    Ok(())
}

fn is_told(stage: &Stage, machine: &Lacking) -> Result<()> {
    let run = |arguments| run(stage, machine.prepare, machine.wrapper, arguments);
    let name = format!("{} {}", machine.prepare, machine.wrapper);
    for arguments in ["attach --port 8080", "daemon"] {
        let (code, said) = run(arguments)?;
        let lines: Vec<_> = said.lines().collect();
        let [error, fix] = lines[..] else {
            anyhow::bail!("{name}, {arguments}: {code:?} {said}");
        };
        let is_told = error.starts_with("error: ") && error.contains(machine.reason);
        ensure!(code == Some(4) && is_told, "{name}, {arguments}: {code:?} {said}");
        ensure!(fix.contains("fix: ") && fix.contains(machine.fix), "{name}: {said}");
    }
    let (code, said) = run("doctor")?;
    let check = said.lines().find(|line| line.starts_with(machine.check)).context(name.clone())?;
    ensure!(code == Some(4) && check.contains(" missing "), "{name}: {code:?} {said}");
    ensure!(said.contains(&format!("fix {}: ", machine.check)), "{name}: {said}");
    ensure!(!said.contains("left behind"), "{name}: {said}");
    // A fix that is no one, and keeps people busy.
    let is_ours = ["user", "capabilities", "system calls", "open files"].contains(&machine.check);
    ensure!(!(is_ours && said.contains("a kernel with")), "{name}: {said}");
    ensure!(!is_ours || said.matches("fix ").count() == 1, "{name}: {said}");
    ensure!(machine.check == "system calls" || !said.contains("WARN"), "{name}: {said}");
    let is_launchers = machine.check == "launcher" || !said.contains("fix launcher");
    ensure!(is_launchers, "{name}: {said}");
    Ok(())
}

/// The agent ran, and had nothing else to do.
#[test]
fn what_was_made_for_an_agent_that_was_started_in_vain_is_taken_back() -> Result<()> {
    let stage = Stage::new()?;
    let (code, said) = run(&stage, "", "", "attach --port 8080")?;
    ensure!(code == Some(4) && said.contains("nothing listens on port 8080"), "{code:?} {said}");
    ensure!(!said.contains("left behind"), "{said}");
    Ok(())
}

/// The agent sees a part of the control groups only, as in a container, and the server is in another one.
#[test]
fn a_server_in_a_control_group_that_is_not_shown_is_told_of() -> Result<()> {
    let server = Script::new(PORT)?;
    let stage = Stage::new()?;
    let _first = stage.start(&server, 1)?;
    let part = format!("{}-part", stage.agent.cgroup().display());
    let above = stage.agent.cgroup().parent().context("a group has a parent")?.display();
    let bound = format!("mkdir -p {part}; mount --bind {part} {above}");
    let alone = format!(
        "sh -c 'echo 0 > {part}/cgroup.procs; exec unshare --cgroup --mount sh -c \"umount {above}; mount -t cgroup2 none {above};
         exec \\\"\\$@\\\"\" sh \"$@\"' sh"
    );
    for (prepare, wrapper, fix) in [
        (bound.as_str(), "", "`mount -t cgroup2 cgroup2 "),
        (&format!("mkdir -p {part}"), &alone, "`--cgroupns=host`"),
    ] {
        let (code, said) = run(&stage, prepare, wrapper, "attach --port 8080")?;
        ensure!(code == Some(4) && said.lines().count() == 2, "{code:?} {said}");
        ensure!(said.contains("is not in the part of the tree") && said.contains(fix), "{said}");
        let (code, said) = run(&stage, prepare, wrapper, "doctor")?;
        ensure!(
            code == Some(0) && said.contains("no server there can be taken charge of"),
            "{said}"
        );
        ensure!(said.contains(fix), "{said}");
    }
    std::fs::remove_dir(part)?;
    Ok(())
}

/// However little room there is: an agent that has been started can write its state.
#[test]
fn attach_works_or_leaves_nothing_whatever_room_there_is() -> Result<()> {
    let server = Script::new(PORT)?;
    let stage = Stage::new()?;
    let _first = stage.start(&server, 1)?;
    let inodes = (1..=10).map(|most| format!("nr_inodes={most}"));
    let blocks = [4, 60, 124, 188, 252, 256, 260, 320].map(|most| format!("size={most}k"));
    let mut worked = 0;
    for room in inodes.chain(blocks) {
        let prepare = format!("mount -t tmpfs -o {room} none $RUN");
        let (code, said) = run(&stage, &prepare, "", "attach --port 8080")?;
        match code {
            Some(0) => worked += 1,
            Some(4) => ensure!(!said.contains("left behind"), "{room}: {said}"),
            _ => anyhow::bail!("{room}: {code:?} {said}"),
        }
    }
    ensure!(worked > 1, "there was never enough");
    Ok(())
}

/// One that ends whoever makes a call leaves the agent no time to say so.
#[test]
fn a_filter_that_kills_the_agent_is_told_of() -> Result<()> {
    let server = Script::new(PORT)?;
    let stage = Stage::new()?;
    let _first = stage.start(&server, 1)?;
    let killing = "/usr/bin/python3 -c \"$FILTER\" $BPF $KILL";
    let (code, said) = run(&stage, "", killing, "attach --port 8080")?;
    ensure!(code == Some(4) && said.lines().count() == 2, "{code:?} {said}");
    ensure!(said.contains("was killed by a filter of system calls (seccomp)"), "{said}");
    ensure!(said.contains("fix: let it pass"), "{said}");
    let (code, said) = run(&stage, "", killing, "doctor")?;
    ensure!(code == Some(4) && said.contains("rehearsal  missing"), "{code:?} {said}");
    ensure!(said.contains("killed by a filter of system calls (seccomp)"), "{said}");
    Ok(())
}

/// One that cannot have the memory that it needs ends wherever it happens to ask for it (`RLIMIT_AS`). With less the command itself
/// ends.
#[test]
fn an_agent_that_finds_no_memory_leaves_nothing_whatever_it_had_begun() -> Result<()> {
    let server = Script::new(PORT)?;
    let stage = Stage::new()?;
    let _first = stage.start(&server, 1)?;
    let mut gave_up = 0;
    for most in (30..=90).step_by(10) {
        let wrapper = format!("prlimit --as={most}000000");
        let (diagnosed, diagnosis) = run(&stage, "", &wrapper, "doctor")?;
        ensure!(matches!(diagnosed, Some(0 | 4)), "{most}: {diagnosed:?} {diagnosis}");
        ensure!(!diagnosis.contains("left behind"), "{most}: {diagnosis}");
        let is_raw = diagnosis.lines().any(|line| line.starts_with("memory allocation"));
        ensure!(!is_raw, "{most}: {diagnosis}");
        let (code, said) = run(&stage, "", &wrapper, "attach --port 8080")?;
        match code {
            Some(0) => {}
            Some(4) => {
                ensure!(diagnosed == Some(4), "{most}: doctor {diagnosis}, attach {said}");
                ensure!(
                    !said.contains("left behind") && said.lines().count() == 2,
                    "{most}: {said}"
                );
                ensure!(said.contains("fix: let the agent have more memory"), "{most}: {said}");
                gave_up += i32::from(said.contains("gave up (SIGABRT): memory allocation of"));
            }
            _ => anyhow::bail!("{most}: {code:?} {said}"),
        }
    }
    ensure!(gave_up > 1, "there was always enough");
    Ok(())
}

/// Whoever kills it, and wherever it was.
#[test]
fn an_agent_that_is_killed_when_it_starts_leaves_nothing() -> Result<()> {
    let server = Script::new(PORT)?;
    let stage = Stage::new()?;
    let _first = stage.start(&server, 1)?;
    for fault in
        ["kill-before make-cgroup 0", "kill-after make-cgroup 0", "kill-after open-datapath 0"]
    {
        let prepare = format!("mkdir -p $DIR/faults; echo {fault} > $DIR/faults/armed");
        let (code, said) = run(&stage, &prepare, "", "attach --port 8080")?;
        ensure!(code == Some(4), "{fault}: {code:?} {said}");
        ensure!(said.contains("the agent, as it started, was killed (SIGKILL)"), "{fault}: {said}");
        // The faults are the test's own.
        let left: Vec<_> = said.lines().filter(|line| line.starts_with("left behind")).collect();
        ensure!(left.iter().all(|line| line.ends_with("/above")), "{fault}: {said}");
    }
    Ok(())
}

/// Control groups are looked for where they are mounted, under whatever name, and nowhere else.
#[test]
fn a_group_is_where_control_groups_are() -> Result<()> {
    let server = Script::new(PORT)?;
    let stage = Stage::new()?;
    let _first = stage.start(&server, 1)?;
    for (elsewhere, fix) in [
        ("$RUN/agent", "fix: name one below `"),
        ("/sys/fs/no-cgroup/agent", "fix: name one below `"),
        ("${GROUP%/*}/../agent", "fix: name one below `"),
    ] {
        let prepare = format!("GROUP={elsewhere}");
        for arguments in ["attach --port 8080", "daemon"] {
            let (code, said) = run(&stage, &prepare, "", arguments)?;
            ensure!(code == Some(2) && said.contains(fix), "{elsewhere}: {code:?} {said}");
            ensure!(said.contains("is no place for a control group"), "{elsewhere}: {said}");
        }
        let (code, said) = run(&stage, &prepare, "", "doctor")?;
        ensure!(code == Some(4) && said.contains("fix control groups: name one"), "{said}");
    }
    for same in [
        "GROUP=${GROUP##*/}",
        "cd ${GROUP%/*}; GROUP=${GROUP##*/}",
        "GROUP=${GROUP%/*}/../$(basename ${GROUP%/*})/${GROUP##*/}",
        "mkdir $RUN/second; mount -t cgroup2 none $RUN/second; GROUP=$RUN/second/${GROUP##*/}",
    ] {
        let (code, said) = run(&stage, same, "", "attach --port 8080")?;
        ensure!(code == Some(0), "{same}: {code:?} {said}");
    }
    ensure!(!stage.agent.cgroup().exists(), "a control group is left");
    Ok(())
}

/// A container may have few processes (`pids.max`), which count threads: whatever the agent comes to, it says so, and ends.
#[test]
fn an_agent_that_may_start_few_processes_says_so_and_leaves_nothing() -> Result<()> {
    let server = Script::new(PORT)?;
    let stage = Stage::new()?;
    let _first = stage.start(&server, 1)?;
    let Some(pids) = Pids::mounted()? else {
        eprintln!("skipped: no control groups count processes here");
        return Ok(());
    };
    for most in [1, 2, 5, 8] {
        let wrapper = pids.wrapper(most);
        for arguments in ["attach --port 8080", "doctor"] {
            let (code, said) = run(&stage, "", &wrapper, arguments)?;
            ensure!(code == Some(4), "{most}, {arguments}: {code:?} {said}");
            ensure!(said.contains("pids.max"), "{most}, {arguments}: {said}");
            let is_short = arguments == "doctor" || said.lines().count() == 2;
            ensure!(is_short, "{most}, {arguments}: {said}");
            ensure!(!said.contains("left behind"), "{most}, {arguments}: {said}");
            // There is none of it where there is none of what it takes.
            ensure!(!said.contains("fix launcher"), "{most}, {arguments}: {said}");
        }
    }
    let (code, said) = run(&stage, "", &pids.wrapper(30), "attach --port 8080")?;
    ensure!(code == Some(0), "{code:?} {said}");
    Ok(())
}

/// As a machine that went down, or somebody who looked around, leaves it.
#[test]
fn a_group_without_an_agent_is_no_obstacle() -> Result<()> {
    let server = Script::new(PORT)?;
    let stage = Stage::new()?;
    let _first = stage.start(&server, 1)?;
    let (code, said) = run(&stage, "mkdir $GROUP", "", "doctor")?;
    ensure!(code == Some(0) && said.contains("is left over, which is in nobody's way"), "{said}");
    let (code, said) = run(&stage, "", "", "attach --port 8080")?;
    ensure!(code == Some(0), "{code:?} {said}");
    let (code, said) = run(&stage, "mkdir $GROUP", "", "doctor --repair")?;
    ensure!(code == Some(0) && said.contains("removed `"), "{code:?} {said}");
    ensure!(!stage.agent.cgroup().exists(), "a control group is left");
    Ok(())
}

/// Nobody was there to take back what one in the foreground had begun to pin.
#[test]
fn what_an_agent_left_that_was_killed_when_it_started_is_in_nobodys_way() -> Result<()> {
    let server = Script::new(PORT)?;
    let stage = Stage::new()?;
    let _first = stage.start(&server, 1)?;
    let killed = format!(
        "DIR=$RUN/agent; mount -t bpf none $PINS; mkdir -p $DIR/faults; echo kill-after open-datapath 0 > $DIR/faults/armed;
         {} --runtime-dir $DIR --pin-dir $PIN --cgroup $GROUP daemon 2> /dev/null || true;
         rm -r $DIR/faults; test -d $PIN/v*-new",
        stage.agent.binary().display()
    );
    let (code, said) = run(&stage, &killed, "", "doctor --repair")?;
    ensure!(code == Some(0) && said.contains("removed `"), "{code:?} {said}");
    ensure!(!said.contains("left behind"), "{said}");
    let (code, said) = run(&stage, &killed, "", "attach --port 8080")?;
    ensure!(code == Some(0) && said.contains("8080  steady"), "{code:?} {said}");
    Ok(())
}

/// Processes are shown to those only who may trace them, which the agent may.
const HIDDEN: &str = "sh -c 'mount -t proc -o hidepid=ptraceable proc /proc && exec \"$@\"' sh";

/// What is lost is said, and keeps nobody from working: parts of CAP_SYS_ADMIN, and what only some servers need.
#[test]
fn where_the_agent_works_doctor_says_so() -> Result<()> {
    let server = Script::new(PORT)?;
    let stage = Stage::new()?;
    let _first = stage.start(&server, 1)?;
    let refused = |call: &str| format!("/usr/bin/python3 -c \"$FILTER\" {call} $EPERM");
    let without =
        |capability: &str| format!("setpriv --bounding-set=-{capability} --inh-caps=-{capability}");
    for (wrapper, loss) in [
        (without("bpf"), ""),
        (without("perfmon"), ""),
        (
            without("net_admin"),
            "without CAP_NET_ADMIN connections that nobody has accepted are lost",
        ),
        (without("kill"), "without CAP_KILL servers of other users are killed"),
        (without("setuid"), "without CAP_SETUID servers of other users cannot be started"),
        // The agent may open more, and does.
        ("prlimit --nofile=12:4096".to_owned(), "at most 4096"),
        ("prlimit --nofile=128:128".to_owned(), "at most 128"),
        // Of what the agent does not call.
        (
            format!("/usr/bin/python3 -c \"$FILTER\" {} $EPERM", libc::SYS_reboot),
            "no filter refuses",
        ),
        (HIDDEN.to_owned(), "`/proc` shows this PID namespace"),
        // Only the rehearsal has a use for these.
        (refused("$UNSHARE"), "tried where the agent would do it"),
        (refused("$MOUNT"), "tried where the agent would do it"),
        ("/usr/bin/python3 -c \"$FILTER\" $UNSHARE $KILL".to_owned(), "kills who makes them"),
        (refused(&libc::SYS_uname.to_string()), "no filter refuses"),
    ] {
        let (code, said) = run(&stage, "", &wrapper, "doctor")?;
        ensure!(code == Some(0) && said.contains(loss), "{wrapper}: {code:?} {said}");
        ensure!(!said.contains("WARN") && !said.contains("left behind"), "{wrapper}: {said}");
        let (code, said) = run(&stage, "", &wrapper, "attach --port 8080")?;
        ensure!(code == Some(0), "{wrapper}: {code:?} {said}");
    }
    Ok(())
}
