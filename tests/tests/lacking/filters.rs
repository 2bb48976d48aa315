//! Calls that an agent makes on the way to its first upgrade, and when it ends: where a filter refuses one, it does not begin.

use anyhow::{Result, ensure};
use nix::libc::{self, c_long};
use tests::servers::Script;
use tests::stage::Stage;

use super::{PORT, run};

/// With what each is called.
const CALLS: [(c_long, &str); 7] = [
    (libc::SYS_getpeername, "getpeername"),
    (libc::SYS_getpid, "getpid"),
    (libc::SYS_lseek, "lseek"),
    (libc::SYS_setsid, "setsid"),
    (libc::SYS_signalfd4, "signalfd4"),
    (libc::SYS_umask, "umask"),
    (libc::SYS_writev, "writev"),
];

/// The other architecture has none of these.
#[cfg(target_arch = "x86_64")]
const BY_NAME: [(c_long, &str); 7] = [
    (libc::SYS_chmod, "chmod"),
    (libc::SYS_dup2, "dup2"),
    (libc::SYS_mkdir, "mkdir"),
    (libc::SYS_readlink, "readlink"),
    (libc::SYS_rename, "rename"),
    (libc::SYS_rmdir, "rmdir"),
    (libc::SYS_unlink, "unlink"),
];
#[cfg(not(target_arch = "x86_64"))]
const BY_NAME: [(c_long, &str); 1] = [(libc::SYS_fchmodat, "fchmodat")];

/// `enum bpf_cmd`
const COMMANDS: [(u32, &str); 6] = [
    (10, "bpf(BPF_PROG_TEST_RUN)"),
    (14, "bpf(BPF_MAP_GET_FD_BY_ID)"),
    (18, "bpf(BPF_BTF_LOAD)"),
    (22, "bpf(BPF_MAP_FREEZE)"),
    (24, "bpf(BPF_MAP_LOOKUP_BATCH)"),
    (29, "bpf(BPF_LINK_UPDATE)"),
];

#[test]
fn a_filter_is_known_by_the_call_that_it_refuses() -> Result<()> {
    let server = Script::new(PORT)?;
    let stage = Stage::new()?;
    let _first = stage.start(&server, 1)?;
    let commands = COMMANDS.map(|(number, name)| (format!("{}:{number}", libc::SYS_bpf), name));
    let calls = CALLS.into_iter().chain(BY_NAME).map(|(number, name)| (number.to_string(), name));
    let wrong: Vec<_> = calls
        .chain(commands)
        .filter_map(|(call, name)| is_told(&stage, &call, name).err())
        .collect();
    ensure!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}

fn is_told(stage: &Stage, call: &str, name: &str) -> Result<()> {
    let wrapper = format!("/usr/bin/python3 -c \"$FILTER\" {call} $EPERM");
    let told = format!("a filter of system calls (seccomp) refuses `{name}`");
    for arguments in ["attach --port 8080", "doctor"] {
        let (code, said) = run(stage, "", &wrapper, arguments)?;
        ensure!(code == Some(4) && said.contains(&told), "{name}, {arguments}: {code:?} {said}");
        let (is_short, fixes) = (said.lines().count() == 2, said.matches("fix").count());
        ensure!(is_short || arguments == "doctor", "{name}: {said}");
        ensure!(fixes == 1 && said.contains("let it pass"), "{name}, {arguments}: {said}");
        ensure!(!said.contains("left behind"), "{name}, {arguments}: {said}");
    }
    Ok(())
}
