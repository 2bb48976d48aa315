//! What the control groups of a server confine it by confines its next generation, also where the groups are gone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use agent_api::{GenerationState, ServiceView};
use anyhow::{Context as _, Result, ensure};
use tests::agent::upgrade;
use tests::servers::{Commanded, Server as _, Started};
use tests::stage::{LIMIT, Stage, generations};
use tests::wait;

const PORT: u16 = 8080;
const VERSION_2: &str = "/sys/fs/cgroup/unified";

/// What a program is asked about, and the kind of program: whether devices are opened, and where to connections go.
const DEVICE: (u32, u32) = (6, 15);
const CONNECT: (u32, u32) = (10, 18);

/// Groups that end with the test.
struct Groups(PathBuf);

impl Groups {
    /// In the hierarchy that is mounted here, if it is.
    fn new(hierarchy: &str) -> Result<Option<Self>> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("control-groups-{}-{number}", std::process::id());
        let top = Path::new(hierarchy).join(name);
        if !Path::new(hierarchy).join("cgroup.procs").exists() {
            return Ok(None);
        }
        fs::create_dir(&top)?;
        Ok(Some(Self(top)))
    }

    /// One below.
    fn with(&self, name: &str) -> Result<PathBuf> {
        let directory = self.0.join(name);
        fs::create_dir(&directory)?;
        Ok(directory)
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        let removed = wait::until("the groups to be empty", LIMIT, || Ok(remove(&self.0).ok()));
        removed.unwrap_or_else(|error| panic!("{error:#}"));
    }
}

/// A group and those below it, in which no process is.
fn remove(group: &Path) -> Result<()> {
    for entry in fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    Ok(fs::remove_dir(group)?)
}

fn remove_soon(group: &Path) -> Result<()> {
    wait::until("the group to be empty", LIMIT, || Ok(fs::remove_dir(group).ok()))
}

/// Attaches a program that answers 0, which is a refusal.
const DENY: &str = "
import ctypes, os, platform, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
def bpf(command, attributes):
    answer = libc.syscall(321 if platform.machine() == 'x86_64' else 280, command, ctypes.create_string_buffer(attributes, len(attributes)), len(attributes))
    if answer < 0: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return answer
directory, attach, kind, flags = sys.argv[1], *map(int, sys.argv[2:])
code = ctypes.create_string_buffer(b'\\xb7' + bytes(7) + b'\\x95' + bytes(7), 16)
license = ctypes.create_string_buffer(b'GPL')
load = struct.pack('<IIQQ', kind, 2, ctypes.addressof(code), ctypes.addressof(license)).ljust(48, b'\\0') + b'deny'.ljust(20, b'\\0') + struct.pack('<I', attach)
bpf(8, struct.pack('<IIII', os.open(directory, os.O_RDONLY), bpf(5, load), attach, flags))
";

/// `BPF_F_ALLOW_MULTI`
const WITH_OTHERS: u32 = 2;

fn deny(group: &Path, (attach, kind): (u32, u32), flags: u32) -> Result<()> {
    let numbers = [attach, kind, flags].map(|it| it.to_string());
    let mut command = Command::new("/usr/bin/python3");
    let output = command.args(["-c", DENY]).arg(group).args(numbers).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Which of opening a device and making a connection the kernel refuses to who is in the group of a process.
const TRY: &str = "
import errno, os, socket, sys
open(sys.argv[1] + '/cgroup.procs', 'w').write('0')
def answer(what):
    try: what()
    except OSError as error: return errno.errorcode[error.errno]
    return 'done'
print(answer(lambda: open('/dev/zero')), answer(lambda: socket.create_connection(('127.0.0.1', 9))))
";

fn group_of(pid: i32, controllers: &str) -> Result<PathBuf> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let line = groups.lines().find_map(|it| it.split_once(&format!(":{controllers}:")));
    let below = line.context("its group")?.1.trim_start_matches('/');
    let place = if controllers.is_empty() { VERSION_2 } else { "/sys/fs/cgroup/pids" };
    Ok(Path::new(place).join(below))
}

fn may(pid: i32) -> Result<String> {
    let group = group_of(pid, "")?;
    let output = Command::new("/usr/bin/python3").args(["-c", TRY]).arg(group).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// A server of a user's that root has put into a group.
fn server_in(group: &Path) -> Result<(Stage, Commanded, Started)> {
    let enter = format!(
        "echo 0 > {}/cgroup.procs && exec setpriv --reuid=65534 --regid=65534 --clear-groups /usr/bin/python3 {{}}/server.py 8080 1 --reuse-port",
        group.display()
    );
    let server = Commanded::new(PORT, &["sh", "-c", &enter])?;
    let (stage, first) = Stage::attached(&server)?;
    let next = ["/usr/bin/python3", "{}/server.py", "8080", "2", "--reuse-port"];
    Ok((stage, Commanded::new(PORT, &next)?, first))
}

/// Brings the next one in, when the one before has ended.
fn switch(stage: &Stage, next: &Commanded, options: &[&str]) -> Result<i32> {
    let options = [&["--cwd", "/", "--settle", "0s"], options].concat();
    stage.switch(next, 2, &options)?;
    Ok(stage.until_steady(PORT)?.generations[0].pids[0])
}

fn refused(stage: &Stage, next: &Commanded, options: &[&str]) -> Result<String> {
    let words = upgrade(PORT, &[&["--cwd", "/"], options].concat(), &next.command(2)?);
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    stage.refused(&words, 4)
}

fn until_dead(stage: &Stage) -> Result<ServiceView> {
    stage.until("nobody", PORT, |it| it.generations[0].state == GenerationState::Dead)
}

#[test]
fn programs_of_the_group_confine_the_next_ones_too() -> Result<()> {
    let Some(groups) = Groups::new(VERSION_2)? else { return Ok(()) };
    let own = groups.with("own")?;
    let (stage, next, first) = server_in(&own)?;
    deny(&groups.0, DEVICE, WITH_OTHERS)?;
    deny(&own, CONNECT, WITH_OTHERS)?;
    assert_eq!(may(first.pid())?, "EPERM EPERM");
    let words = upgrade(PORT, &["--cwd", "/", "--dry-run"], &next.command(2)?);
    let previewed = stage.agent.run(&words)?.success()?.stdout;
    for named in [
        "attach the BPF programs",
        "cgroup_device (program",
        "cgroup_inet4_connect (program",
        "`deny`",
    ] {
        assert!(previewed.contains(named), "{named} in {previewed}");
    }
    assert_eq!(stage.traces()?.iter().filter(|it| it.ends_with("server.2")).count(), 0);
    for generation in [2, 3, 4] {
        let pid = switch(&stage, &next, &[])?;
        assert_eq!(may(pid)?, "EPERM EPERM", "generation {generation}");
        match generation {
            // The group of the first one goes with it, and what was carried stays.
            2 => remove_soon(&own)?,
            3 => {
                tests::process::Handle::open(pid)?.kill()?;
                until_dead(&stage)?;
            }
            _ => {
                let process = tests::process::Handle::open(pid)?;
                let said = stage.agent.detach(PORT)?.success()?.stderr;
                assert!(said.contains("do not confine: cgroup_inet4_connect (program"), "{said}");
                assert_eq!(may(pid)?, "EPERM ECONNREFUSED");
                process.kill()?;
            }
        }
    }
    Ok(())
}

#[test]
fn programs_of_a_server_that_has_ended_are_carried_or_named() -> Result<()> {
    let Some(groups) = Groups::new(VERSION_2)? else { return Ok(()) };
    let own = groups.with("own")?;
    deny(&own, CONNECT, WITH_OTHERS)?;
    let (stage, next, mut first) = server_in(&own)?;
    first.kill()?;
    until_dead(&stage)?;
    remove_soon(&own)?;
    // As long as the kernel has the program it can be carried, and of a group that is gone it lets go a little later.
    wait::until("the program to be gone", LIMIT, || {
        let words = upgrade(PORT, &["--cwd", "/", "--dry-run"], &next.command(2)?);
        Ok((stage.agent.run(&words)?.code != Some(0)).then_some(()))
    })?;
    let said = refused(&stage, &next, &[])?;
    assert!(said.contains("cgroup_inet4_connect (program"), "{said}");
    assert!(said.contains("--unconfined bpf"), "{said}");
    let pid = switch(&stage, &next, &["--unconfined", "bpf"])?;
    assert_eq!(may(pid)?, "done ECONNREFUSED");
    stage.detach(PORT)
}

/// Below a group whose program allows no others nothing can be attached.
#[test]
fn a_program_that_cannot_be_attached_is_lost_only_where_that_is_said() -> Result<()> {
    let Some(groups) = Groups::new(VERSION_2)? else { return Ok(()) };
    deny(&groups.0, CONNECT, WITH_OTHERS)?;
    let (stage, next, first) = server_in(&groups.0)?;
    deny(stage.agent.cgroup(), (18, 8), 0).unwrap_err();
    deny(stage.agent.cgroup(), CONNECT, 0)?;
    assert_eq!(may(first.pid())?, "done EPERM");
    for options in [&[][..], &["--dry-run"], &["--unconfined", "groups"]] {
        let said = refused(&stage, &next, options)?;
        assert!(said.contains("cgroup_inet4_connect (program"), "{said}");
        assert!(said.contains("--unconfined bpf"), "{said}");
    }
    assert_eq!(stage.agent.service(PORT)?.generations.len(), 1);
    switch(&stage, &next, &["--unconfined", "bpf"])?;
    stage.detach(PORT)
}

/// Has a group pass a controller on, where there is one.
fn pass_on(group: &Path) -> Result<bool> {
    let known = fs::read_to_string(format!("{VERSION_2}/cgroup.controllers"))?;
    if !known.contains("hugetlb") {
        return Ok(false);
    }
    for group in [Path::new(VERSION_2), group] {
        fs::write(group.join("cgroup.subtree_control"), "+hugetlb")?;
    }
    Ok(true)
}

#[test]
fn processes_do_not_come_out_of_the_groups_above_one_that_is_gone() -> Result<()> {
    let Some(groups) = Groups::new(VERSION_2)? else { return Ok(()) };
    for passes_on in [false, true] {
        let own = groups.with("own")?;
        let (stage, next, _first) = server_in(&own)?;
        let pid = switch(&stage, &next, &[])?;
        remove_soon(&own)?;
        let home = match passes_on && pass_on(&groups.0)? {
            // It takes no processes itself.
            true => own.clone(),
            false => groups.0.clone(),
        };
        let process = tests::process::Handle::open(pid)?;
        let said = stage.agent.detach(PORT)?.success()?;
        assert_eq!(group_of(pid, "")?, home);
        let told = match home == own {
            true => "it was gone, and was made anew".to_owned(),
            false => format!("`{}`, in which the first ones were, is gone", own.display()),
        };
        assert!(said.stderr.contains(&told), "{said:?}");
        process.kill()?;
    }
    Ok(())
}

/// Where this machine has hierarchies of version 1.
#[test]
fn the_next_one_is_where_its_server_is_now() -> Result<()> {
    let Some(groups) = Groups::new("/sys/fs/cgroup/pids")? else { return Ok(()) };
    let (own, sibling) = (groups.with("own")?, groups.with("sibling")?);
    let (stage, next, first) = server_in(&own)?;
    fs::write(sibling.join("cgroup.procs"), first.pid().to_string())?;
    remove_soon(&own)?;
    let pid = switch(&stage, &next, &[])?;
    assert_eq!(group_of(pid, "pids")?, sibling);
    stage.detach(PORT)
}

#[test]
fn a_group_that_is_gone_with_its_server_is_lost_only_where_that_is_said() -> Result<()> {
    let Some(groups) = Groups::new("/sys/fs/cgroup/pids")? else { return Ok(()) };
    let own = groups.with("own")?;
    fs::write(own.join("pids.max"), "40")?;
    let (stage, next, mut first) = server_in(&own)?;
    first.kill()?;
    until_dead(&stage)?;
    remove_soon(&own)?;
    for made_anew in [false, true] {
        // One that is called as it was allows what it likes.
        if made_anew {
            fs::create_dir(&own)?;
        }
        let said = refused(&stage, &next, &[])?;
        assert!(said.contains(&own.display().to_string()), "{said}");
        assert!(said.contains("--unconfined groups"), "{said}");
    }
    let pid = switch(&stage, &next, &["--unconfined", "groups"])?;
    assert_eq!(group_of(pid, "pids")?, groups.0);
    stage.detach(PORT)
}

/// Where version 2 has a controller.
#[test]
fn limits_of_a_group_that_is_gone_were_written_down() -> Result<()> {
    let Some(groups) = Groups::new(VERSION_2)? else { return Ok(()) };
    if !pass_on(&groups.0)? {
        return Ok(());
    }
    let own = groups.with("own")?;
    fs::write(own.join("hugetlb.2MB.max"), "4194304")?;
    let (stage, next, mut first) = server_in(&own)?;
    first.kill()?;
    until_dead(&stage)?;
    remove_soon(&own)?;
    let pid = switch(&stage, &next, &[])?;
    let limit = group_of(pid, "")?.join("hugetlb.2MB.max");
    assert_eq!(fs::read_to_string(limit)?, "4194304\n");
    let service = stage.agent.service(PORT)?;
    assert!(generations(&service).contains_key(&2));
    stage.detach(PORT)
}
