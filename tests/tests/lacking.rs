//! Machines on which the agent cannot run: `attach`, `daemon` and `doctor` say why, and leave nothing behind.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use tests::servers::Script;
use tests::stage::Stage;

const PORT: u16 = 8080;

/// A machine that lacks something.
struct Lacking {
    /// Run before the agent, with `$RUN` and `$PINS` for the places where its directories are to be, in a mount namespace of its own.
    prepare: &'static str,
    /// In front of the agent.
    wrapper: &'static str,
    /// What `attach` and `daemon` say.
    reason: &'static str,
    /// What of the fix.
    fix: &'static str,
    /// The check of `doctor` that is not as it should be.
    check: &'static str,
}

const MACHINES: [Lacking; 9] = [
    Lacking {
        prepare: "mount -t tmpfs -o ro none $RUN",
        wrapper: "",
        reason: "Read-only file system",
        fix: "make that file system writable",
        check: "runtime directory",
    },
    Lacking {
        prepare: "mount -t tmpfs -o nr_inodes=1 none $RUN",
        wrapper: "",
        reason: "No space left on device",
        fix: "make room",
        check: "runtime directory",
    },
    Lacking {
        prepare: "mount -t bpf none $PINS; mount -o remount,ro $PINS",
        wrapper: "",
        reason: "Read-only file system",
        fix: "make that file system writable",
        check: "BPF file system",
    },
    Lacking {
        prepare: "",
        wrapper: "prlimit --nofile=14",
        reason: "Too many open files",
        fix: "LimitNOFILE=",
        check: "open files",
    },
    Lacking {
        prepare: "",
        wrapper: "setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin",
        reason: "the agent lacks CAP_SYS_ADMIN",
        fix: "in a container, give it this capability",
        check: "capabilities",
    },
    Lacking {
        prepare: "",
        wrapper: "setpriv --bounding-set=-sys_ptrace --inh-caps=-sys_ptrace",
        reason: "the agent lacks CAP_SYS_PTRACE: without it nobody can see whose a listener is",
        fix: "in a container, give it this capability",
        check: "capabilities",
    },
    Lacking {
        prepare: "",
        wrapper: "setpriv --bounding-set=-dac_override --inh-caps=-dac_override",
        reason: "the agent lacks CAP_DAC_OVERRIDE",
        fix: "in a container, give it this capability",
        check: "capabilities",
    },
    Lacking {
        prepare: "",
        wrapper: "unshare --user --map-root-user",
        reason: "root of a user namespace only",
        fix: "not in a rootless container",
        check: "user",
    },
    Lacking {
        prepare: "umount -a -t cgroup2",
        wrapper: "",
        reason: "no cgroup2 file system is mounted",
        fix: "mount it: ",
        check: "control groups",
    },
];

/// Runs a command of the agent on such a machine: its exit code and what it says.
fn run(
    stage: &Stage,
    prepare: &str,
    wrapper: &str,
    arguments: &str,
) -> Result<(Option<i32>, String)> {
    let (run, pins) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let script = format!(
        "set -e; mount --make-rprivate /; RUN={run} PINS={pins}; {prepare}
         mountpoint -q $PINS || mount -t bpf none $PINS
         PLACES=\"--runtime-dir $RUN/agent --pin-dir $PINS/agent --cgroup {group}\"
         set +e; timeout 30 {wrapper} {agent} $PLACES {arguments}; code=$?
         {agent} $PLACES detach --port 8080 > /dev/null 2>&1
         for left in $RUN/agent $PINS/agent; do test -e $left && echo left behind: $left; done; exit $code",
        run = run.path().display(),
        pins = pins.path().display(),
        agent = stage.agent.binary().display(),
        group = stage.agent.cgroup().display(),
    );
    let mut alone = Command::new("unshare");
    alone.args(["--mount", "bash", "-c", &script]);
    let output = stage.namespace.output(&mut alone)?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.code(), String::from_utf8_lossy(&said).into_owned()))
}

#[test]
fn each_lack_is_told_in_one_line_with_what_to_do_and_nothing_is_left() -> Result<()> {
    let server = Script::new(PORT)?;
    let stage = Stage::new()?;
    let _first = stage.start(&server, 1)?;
    for machine in &MACHINES {
        let run = |arguments| run(&stage, machine.prepare, machine.wrapper, arguments);
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
        let check =
            said.lines().find(|line| line.starts_with(machine.check)).context(name.clone())?;
        ensure!(code == Some(4) && check.contains(" missing "), "{name}: {code:?} {said}");
        ensure!(said.contains(&format!("fix {}: ", machine.check)), "{name}: {said}");
        ensure!(!said.contains("left behind"), "{name}: {said}");
    }
    assert!(!stage.agent.cgroup().exists(), "a control group is left");
    Ok(())
}

/// What is lost is said, and keeps nobody from working: parts of CAP_SYS_ADMIN, and what only some servers need.
#[test]
fn where_the_agent_works_doctor_says_so() -> Result<()> {
    let server = Script::new(PORT)?;
    let stage = Stage::new()?;
    let _first = stage.start(&server, 1)?;
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
    ] {
        let (code, said) = run(&stage, "", &wrapper, "doctor")?;
        ensure!(code == Some(0) && said.contains(loss), "{wrapper}: {code:?} {said}");
        let (code, said) = run(&stage, "", &wrapper, "attach --port 8080")?;
        ensure!(code == Some(0), "{wrapper}: {code:?} {said}");
    }
    Ok(())
}
