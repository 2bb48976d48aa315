//! What keeps a server from doing all that its user may keeps the next generation from it too.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use tests::servers::{Commanded, Script, Server, Started};
use tests::stage::{Stage, generations};

const PORT: u16 = 8080;

/// A server that a chain of words has become, and what confines it.
struct Scene {
    stage: Stage,
    first: Started,
    next: Script,
}

impl Scene {
    fn new(before: &[&str]) -> Result<Self> {
        let server = ["/usr/bin/python3", "{}/server.py", "8080", "1"];
        let server = Commanded::new(PORT, &[before, &server].concat())?;
        let (stage, first) = Stage::attached(&server)?;
        let next = Script::new(PORT)?;
        // The first one's folder went with it; this one is for any user.
        fs::set_permissions(next.directory(), fs::Permissions::from_mode(0o755))?;
        Ok(Self { stage, first, next })
    }

    fn switch(&self, generation: u32) -> Result<i32> {
        let options = ["--cwd", "/", "--keep-old", "1m"];
        let mut command = self.next.command(generation)?;
        "/usr/bin/python3".clone_into(&mut command[0]);
        self.stage.agent.switch(PORT, &options, &command)?.success()?;
        let service = self.stage.agent.service(PORT)?;
        Ok(generations(&service)[&generation].pids[0])
    }

    /// Two generations on are as the first one is.
    fn is_passed_on(&self, of: impl Fn(i32) -> Result<Vec<String>>) -> Result<Vec<String>> {
        let first = of(self.first.pid())?;
        for generation in [2, 3] {
            let next = of(self.switch(generation)?)?;
            assert_eq!(next, first, "generation {generation}");
        }
        self.stage.namespace.clear()?;
        Ok(first)
    }
}

/// Lines of a file in `/proc/PID`.
fn lines(pid: i32, file: &str, of: &[&str]) -> Result<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}"))?;
    let is_of = |line: &&str| of.iter().any(|it| line.contains(it));
    Ok(text.lines().filter(is_of).map(str::to_owned).collect())
}

fn rights(pid: i32) -> Result<Vec<String>> {
    lines(pid, "status", &["Uid", "Gid", "Groups", "Cap", "NoNewPrivs", "Cpus_allowed_list"])
}

/// How it is scheduled: the policy is the 41st word, counted from the state behind the name, which is the third.
fn scheduling(pid: i32) -> Result<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, words) = stat.rsplit_once(')').context("a name")?;
    let policy = words.split_whitespace().nth(41 - 3).context("a policy")?.to_owned();
    let personality = fs::read_to_string(format!("/proc/{pid}/personality"))?;
    let ionice = std::process::Command::new("ionice").args(["-p", &pid.to_string()]).output()?;
    Ok(vec![policy, personality.trim().to_owned(), String::from_utf8(ionice.stdout)?])
}

#[test]
fn capabilities_are_passed_on_to_another_user() -> Result<()> {
    let scene = Scene::new(&[
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--inh-caps=-all,+net_bind_service,+net_raw",
        "--ambient-caps=-all,+net_bind_service",
        "--bounding-set=-all,+net_bind_service,+net_raw",
        "--no-new-privs",
    ])?;
    let rights = scene.is_passed_on(rights)?;
    let ambient = rights.iter().any(|it| it == "CapAmb:\t0000000000000400");
    ensure!(ambient && rights.iter().any(|it| it == "NoNewPrivs:\t1"), "{rights:?}");
    Ok(())
}

#[test]
fn root_gets_no_more_than_it_had() -> Result<()> {
    let scene = Scene::new(&["setpriv", "--bounding-set=-sys_admin,-sys_module,-net_admin"])?;
    let rights = scene.is_passed_on(rights)?;
    let ours = lines(std::process::id().cast_signed(), "status", &["CapPrm"])?;
    ensure!(!rights.contains(&ours[0]), "{rights:?}");
    Ok(())
}

/// Secure bits are to be seen nowhere, but what they leave of root's capabilities is.
#[test]
fn root_that_is_kept_from_its_capabilities_gets_none() -> Result<()> {
    let scene = Scene::new(&["setpriv", "--securebits=+noroot,+noroot_locked", "--inh-caps=-all"])?;
    let permitted = |pid| lines(pid, "status", &["CapPrm", "CapEff"]);
    let none = scene.is_passed_on(permitted)?;
    assert_eq!(none, ["CapPrm:\t0000000000000000", "CapEff:\t0000000000000000"]);
    Ok(())
}

#[test]
fn what_children_are_not_to_have_of_the_policy_they_do_not_get() -> Result<()> {
    let scene = Scene::new(&["chrt", "--reset-on-fork", "--fifo", "3"])?;
    let chrt = |pid: i32| -> Result<Vec<String>> {
        let said = std::process::Command::new("chrt").args(["-p", &pid.to_string()]).output()?;
        let said = String::from_utf8(said.stdout)?;
        let first = said.lines().next().context("a policy")?;
        Ok(vec![first.split_once(':').context("a policy")?.1.to_owned()])
    };
    let policy = scene.is_passed_on(chrt)?;
    assert!(policy[0].contains("SCHED_FIFO|SCHED_RESET_ON_FORK"), "{policy:?}");
    Ok(())
}

#[test]
fn processor_policy_and_personality_are_passed_on() -> Result<()> {
    let words =
        "taskset -c 0 ionice -c 2 -n 6 chrt --batch 0 nice -n 3 setarch --addr-no-randomize";
    let scene = Scene::new(&words.split(' ').collect::<Vec<_>>())?;
    let of = |pid| Ok([rights(pid)?, scheduling(pid)?].concat());
    let all = scene.is_passed_on(of)?;
    for expected in ["Cpus_allowed_list:\t0", "3", "00040000"] {
        assert!(all.iter().any(|it| it == expected), "{expected} in {all:?}");
    }
    Ok(())
}

/// A group that ends with the test.
struct Group(PathBuf);

impl Group {
    /// In the hierarchy that is mounted here, if it is.
    fn new(hierarchy: &str, file: &str, value: &str) -> Result<Option<Self>> {
        let directory = Path::new(hierarchy).join(format!("confined-{}", std::process::id()));
        if !Path::new(hierarchy).join("cgroup.procs").exists() {
            return Ok(None);
        }
        fs::create_dir(&directory)?;
        let group = Self(directory);
        fs::write(group.0.join(file), value).with_context(|| format!("{hierarchy}: {file}"))?;
        Ok(Some(group))
    }

    /// As the first words of a command.
    fn enter(&self) -> String {
        format!("echo 0 > {}/cgroup.procs && exec \"$@\"", self.0.display())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let removed = tests::wait::until("the group to be empty", tests::stage::LIMIT, || {
            Ok(fs::remove_dir(&self.0).ok())
        });
        removed.unwrap_or_else(|error| panic!("{error:#}"));
    }
}

/// Where this machine has hierarchies of version 1.
#[test]
fn groups_of_version_1_are_joined() -> Result<()> {
    let Some(group) = Group::new("/sys/fs/cgroup/pids", "pids.max", "40")? else { return Ok(()) };
    let scene = Scene::new(&["sh", "-c", &group.enter(), "sh"])?;
    let of = scene.is_passed_on(|pid| lines(pid, "cgroup", &[":pids:"]))?;
    assert!(of[0].contains("confined-"), "{of:?}");
    Ok(())
}

/// Where version 2 has a controller.
#[test]
fn limits_of_version_2_are_set_for_the_group_of_the_next_one() -> Result<()> {
    let root = "/sys/fs/cgroup/unified";
    let Ok(controllers) = fs::read_to_string(format!("{root}/cgroup.controllers")) else {
        return Ok(());
    };
    if !controllers.contains("hugetlb") {
        return Ok(());
    }
    fs::write(format!("{root}/cgroup.subtree_control"), "+hugetlb")?;
    let Some(group) = Group::new(root, "hugetlb.2MB.max", "4194304")? else { return Ok(()) };
    let scene = Scene::new(&["sh", "-c", &group.enter(), "sh"])?;
    let limit = |pid: i32| -> Result<Vec<String>> {
        let own = lines(pid, "cgroup", &["0::"])?.concat();
        let file = format!("{root}{}/hugetlb.2MB.max", own.trim_start_matches("0::"));
        Ok(vec![fs::read_to_string(&file).with_context(|| file)?])
    };
    assert_eq!(scene.is_passed_on(limit)?, ["4194304\n"]);
    Ok(())
}

/// It allows everything, but nobody can know that.
const FILTER: &str = "import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
allow = ctypes.create_string_buffer(b'\\x06\\0\\0\\0\\0\\0\\xff\\x7f', 8)
program = ctypes.create_string_buffer((1).to_bytes(8, 'little') + ctypes.addressof(allow).to_bytes(8, 'little'), 16)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program, 0, 0) == 0
os.execv(sys.argv[1], sys.argv[1:])";

#[test]
fn a_filter_of_system_calls_is_lost_only_where_that_is_said() -> Result<()> {
    let scene = Scene::new(&["/usr/bin/python3", "-c", FILTER])?;
    let command = scene.next.command(2)?;
    let refused = scene.stage.agent.switch(PORT, &["--cwd", "/"], &command)?;
    assert_eq!(refused.code, Some(4), "{refused:?}");
    assert!(refused.stderr.contains("--unconfined seccomp"), "{refused:?}");
    assert_eq!(scene.stage.agent.service(PORT)?.generations.len(), 1);
    let options = ["--cwd", "/", "--unconfined", "seccomp"];
    scene.stage.agent.switch(PORT, &options, &command)?.success()?;
    assert_eq!(scene.stage.generation(scene.next.address())?, 2);
    scene.stage.namespace.clear()
}

#[test]
fn the_root_directory_is_passed_on() -> Result<()> {
    let root = tempfile::tempdir()?;
    let tools = std::env::var("AGENT_TEST_TOOLS").context("cargo xtask test says where")?;
    fs::copy(format!("{tools}/bin/go-server"), root.path().join("server"))?;
    let folder = root.path().display().to_string();
    // Multipath TCP would be in its way.
    let own = ["env", "GODEBUG=multipathtcp=0"];
    let first = ["chroot", &folder, "/server", "-listen", ":8080", "-generation", "1"];
    let (stage, first) = Stage::attached(&Commanded::new(PORT, &[&own[..], &first].concat())?)?;
    let root_of = |pid: i32| fs::read_link(format!("/proc/{pid}/root"));
    assert_eq!(root_of(first.pid())?, root.path());
    for (generation, program) in [(2, format!("{folder}/server")), (3, "/server".to_owned())] {
        let number = generation.to_string();
        let words = [&program, "-listen", ":8080", "-generation", &number].map(str::to_owned);
        let switched = stage.agent.switch(PORT, &["--keep-old", "1m"], &words)?;
        // A program is looked up where it is called from.
        if generation == 3 {
            assert_eq!(switched.code, Some(4), "{switched:?}");
            continue;
        }
        switched.success()?;
        let service = stage.agent.service(PORT)?;
        assert_eq!(root_of(generations(&service)[&generation].pids[0])?, root.path());
    }
    let outside = stage.agent.switch(PORT, &[], &["/usr/bin/env".to_owned()])?;
    assert_eq!(outside.code, Some(4), "{outside:?}");
    assert!(outside.stderr.contains("has the root directory"), "{outside:?}");
    stage.namespace.clear()
}
