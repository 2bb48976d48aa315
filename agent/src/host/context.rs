//! What a running process was given, so that the next generation can be given the same.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use procfs::{ProcError, process::Status};
use serde::{Deserialize, Serialize};

use super::{
    cgroup::{Confining, Hierarchy},
    confinement::Confinement,
    limit::{self, Limit},
    os_text::OsText,
    patience,
    process::{Pid, Process, ProcessError, stat, status, text_of},
    set_id,
};

/// The surroundings of a process that are not its program: who it is, where it runs, what it may
/// use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    /// The effective user, numbered as we see it.
    pub uid: u32,
    /// The effective group.
    pub gid: u32,
    /// The supplementary groups.
    pub groups: Vec<u32>,
    /// The working directory, as a path inside the process's mount namespace.
    pub working_directory: OsText,
    /// The variables it was started with. Later changes stay inside a process, where nobody can see
    /// them.
    pub environment: Vec<(OsText, OsText)>,
    /// Whether it still shows them: who gives itself a title writes it over them.
    #[serde(default = "known")]
    pub is_environment_known: bool,
    /// What it may use.
    pub limits: Vec<Limit>,
    /// The permissions that its new files do not get.
    pub umask: u32,
    /// The namespaces it does not share with the launcher.
    pub namespaces: Vec<Namespace>,
    /// How readily the kernel kills it for its memory.
    pub oom_score_adj: i32,
    /// Its scheduling priority.
    pub nice: i32,
    /// What keeps it from doing all that its user may; `None` in what was written down before that was looked at.
    #[serde(default)]
    pub confinement: Option<Confinement>,
    /// How its control group (version 2) confines it; `None` where that could not be looked at.
    #[serde(default)]
    pub control_group: Option<Confining>,
}

impl Context {
    /// The context of a running process, as the launcher has to make it for a child of its own.
    ///
    /// # Errors
    ///
    /// [`ProcessError::Gone`], or [`ProcessError::Read`] where we may not look: the environment and
    /// the namespaces of another user's process are for root. [`ProcessError::SetId`] if its rights are not those that it was started
    /// with, [`ProcessError::Changed`] if it was executed anew meanwhile.
    pub fn of(pid: Pid, launcher: Pid) -> Result<Self, ProcessError> {
        let process = Process::open(pid)?;
        let before = image(pid)?;
        let context = Self::read(pid, launcher)?;
        // Whoever enters a namespace of his own has more rights in there, and cannot come back: what was read before this was read
        // where it is now.
        if differing_namespaces(pid, launcher)? != context.namespaces {
            return Err(ProcessError::Changed { pid });
        }
        set_id::refuse(pid)?;
        // What one program shows is not put together with the rights of another.
        if image(pid)? != before || status(pid)?.euid != context.uid {
            return Err(ProcessError::Changed { pid });
        }
        // All files were of this process only if it has lived until now.
        if process.is_alive()? { Ok(context) } else { Err(ProcessError::Gone { pid }) }
    }

    /// For one of which nobody can say what it was given: as little as there is.
    pub fn unknown() -> Self {
        const NOBODY: u32 = 65_534;
        Self {
            uid: NOBODY,
            gid: NOBODY,
            groups: Vec::new(),
            working_directory: "/".into(),
            environment: Vec::new(),
            is_environment_known: false,
            limits: Vec::new(),
            umask: DEFAULT_UMASK,
            namespaces: Vec::new(),
            oom_score_adj: 0,
            nice: 0,
            confinement: None,
            control_group: None,
        }
    }

    fn read(pid: Pid, launcher: Pid) -> Result<Self, ProcessError> {
        let Status { euid, egid, groups, umask, .. } = status(pid)?;
        let working_directory = fs::read_link(format!("/proc/{pid}/cwd")).map_err(|error| {
            ProcessError::reading(pid, "the working directory", ProcError::from(error))
        })?;
        let environment = environment_of(pid)?;
        let limits = text_of(pid, "limits", "the limits")?;
        let score = text_of(pid, "oom_score_adj", "the memory score")?;
        Ok(Self {
            uid: euid,
            gid: egid,
            groups: groups.into_iter().collect(),
            working_directory: working_directory.into(),
            is_environment_known: environment.is_some(),
            environment: environment.unwrap_or_default(),
            limits: String::from_utf8_lossy(&limits).lines().filter_map(limit::parse).collect(),
            umask: umask.unwrap_or(DEFAULT_UMASK),
            namespaces: differing_namespaces(pid, launcher)?,
            oom_score_adj: String::from_utf8_lossy(&score).trim().parse().unwrap_or(0),
            nice: i32::try_from(stat(pid)?.nice).unwrap_or(0),
            confinement: Some(Confinement::of(pid)?),
            control_group: control_group(pid),
        })
    }
}

/// A mount of the hierarchy may not show it.
fn control_group(pid: Pid) -> Option<Confining> {
    let hierarchy = Hierarchy::find().ok()?;
    Confining::of(&hierarchy.of(pid).ok()?, &hierarchy).ok()
}

/// Where the kernel has placed its program and stack: another place at each execution, unless somebody forbids that (`personality`).
fn image(pid: Pid) -> Result<(u64, u64, u64), ProcessError> {
    let stat = stat(pid)?;
    Ok((stat.startcode, stat.startstack, stat.endcode))
}

/// What was written down before that was looked at.
const fn known() -> bool {
    true
}

/// The process decides how large it is, and how long it takes.
fn environment_of(pid: Pid) -> Result<Option<Vec<(OsText, OsText)>>, ProcessError> {
    const MOST: u64 = 1 << 20;
    let bytes = patience::read(pid, "environ", MOST)
        .map_err(|error| ProcessError::reading(pid, "the environment", error.into()))?;
    Ok(variables(&bytes))
}

/// The variables in `/proc/PID/environ`; nothing if the process wrote over its own memory. A title that reaches into it
/// leaves a part of itself in front, or zeros where variables were.
pub(super) fn variables(environment: &[u8]) -> Option<Vec<(OsText, OsText)>> {
    let split = |entry: &[u8]| {
        let equals =
            entry.iter().position(|byte| *byte == b'=').filter(|position| *position > 0)?;
        Some((OsText::from_bytes(&entry[..equals]), OsText::from_bytes(&entry[equals + 1..])))
    };
    let Some(whole) = environment.strip_suffix(b"\0") else {
        return environment.is_empty().then(Vec::new);
    };
    let mut entries = whole.split(|byte| *byte == 0);
    let is_overwritten = split(entries.clone().next()?).is_none() || entries.any(<[u8]>::is_empty);
    (!is_overwritten).then(|| whole.split(|byte| *byte == 0).filter_map(split).collect())
}

/// A kind of namespace that a process can be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Namespace {
    /// Mounted file systems.
    Mount,
    /// Process numbers.
    Pid,
    /// Host name.
    Uts,
    /// Shared memory and message queues.
    Ipc,
    /// Interfaces and sockets.
    Network,
    /// Users, groups and capabilities.
    User,
    /// The root of control groups.
    Cgroup,
}

impl Namespace {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Mount, Self::Pid, Self::Uts, Self::Ipc, Self::Network, Self::User, Self::Cgroup];

    /// The name of its file in `/proc/PID/ns`.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Mount => "mnt",
            Self::Pid => "pid",
            Self::Uts => "uts",
            Self::Ipc => "ipc",
            Self::Network => "net",
            Self::User => "user",
            Self::Cgroup => "cgroup",
        }
    }
}

/// The number (inode) of the network namespace that a process lives in.
///
/// # Errors
///
/// When the process is gone, or may not be looked at.
pub fn network_namespace_of(pid: Pid) -> Result<u64, ProcessError> {
    let file = fs::metadata(format!("/proc/{pid}/ns/{}", Namespace::Network.file_name()));
    file.map(|file| file.ino())
        .map_err(|error| ProcessError::reading(pid, "the namespaces", ProcError::from(error)))
}

/// Which namespaces of the process are not the launcher's. A link there reads like `mnt:[4026531841]`, one
/// number per namespace.
fn differing_namespaces(pid: Pid, launcher: Pid) -> Result<Vec<Namespace>, ProcessError> {
    let mut differing = Vec::new();
    for namespace in Namespace::ALL {
        let name = namespace.file_name();
        // A kernel built without this kind has no file of it, for any process.
        if !Path::new("/proc/thread-self/ns").join(name).exists() {
            continue;
        }
        let of = |pid: Pid| {
            fs::read_link(format!("/proc/{pid}/ns/{name}")).map_err(|error| {
                ProcessError::reading(pid, "the namespaces", ProcError::from(error))
            })
        };
        if of(pid)? != of(launcher)? {
            differing.push(namespace);
        }
    }
    Ok(differing)
}

/// What nearly every process has; for kernels that do not show it.
const DEFAULT_UMASK: u32 = 0o022;

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::{super::limit::Resource, *};

    #[test]
    fn our_own_context_is_ours() {
        let context = Context::of(Pid::ours(), Pid::ours()).unwrap();
        assert_eq!(context.uid, rustix::process::geteuid().as_raw());
        assert_eq!(context.gid, rustix::process::getegid().as_raw());
        assert_eq!(context.working_directory, std::env::current_dir().unwrap().into());
        assert_eq!(context.namespaces, []);
        assert_eq!(context.limits.len(), Resource::ALL.len());
        let files = context.limits.iter().find(|limit| limit.resource == Resource::Nofile).unwrap();
        let kernel = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        assert_eq!((files.soft, files.hard), (kernel.current, kernel.maximum));
        let json = serde_json::to_string(&context).unwrap();
        assert_eq!(serde_json::from_str::<Context>(&json).unwrap(), context);
    }

    #[test]
    fn environment_directory_and_umask_of_another_process_are_seen() {
        let directory = tempfile::tempdir().unwrap();
        let mut child = Command::new("sh")
            .args(["-c", "umask 027; echo; read line"])
            .env_clear()
            .env("GREETING", "a=b\nc")
            .current_dir(&directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        let context =
            Context::of(Pid::new(child.id().try_into().unwrap()).unwrap(), Pid::ours()).unwrap();
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!(context.environment, [("GREETING".into(), "a=b\nc".into())]);
        assert_eq!(context.working_directory, directory.path().canonicalize().unwrap().into());
        assert_eq!(context.umask, 0o027);
    }

    #[test]
    fn an_environment_that_was_written_over_is_not_believed() {
        let known = vec![("A".into(), "".into()), ("B".into(), "1".into())];
        assert_eq!(variables(b"A=\0odd\0B=1\0"), Some(known));
        assert_eq!(variables(b""), Some(Vec::new()));
        for written in
            [&b"aster process\0A=1\0"[..], b"A=1\0\0\0", b"\0\0\0\0", b"=x\0A=1\0", b"A=1\0B=2"]
        {
            assert_eq!(variables(written), None, "{}", String::from_utf8_lossy(written));
        }
    }
}
