//! Where things are.
//!
//! Everything that is built or installed for this workspace alone lives below `target/`, at fixed places: the agent's
//! build script looks for the eBPF object there, and a user's `CARGO_TARGET_DIR` must not move it.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// How the workspace is optimised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// For tests and daily work.
    Dev,
    /// For use.
    Release,
}

/// What a static build is for: it runs on every Linux of that architecture, whatever libraries are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Target {
    #[value(name = "x86_64-unknown-linux-musl")]
    X86_64,
    #[value(name = "aarch64-unknown-linux-musl")]
    Aarch64,
}

impl Target {
    /// As the compiler calls it.
    pub(crate) fn triple(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-musl",
            Self::Aarch64 => "aarch64-unknown-linux-musl",
        }
    }
}

/// The top of the workspace.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is one level below the top")
}

/// The prefix that tools are installed to, with a `bin` in it.
pub(crate) fn tools(root: &Path) -> PathBuf {
    root.join("target/tools")
}

/// The linker that makes a BPF object of what the compiler emits.
pub(crate) fn bpf_linker(root: &Path) -> PathBuf {
    tools(root).join("bin/bpf-linker")
}

/// The target folder of the eBPF build.
///
/// A folder of its own, because its flags are not those of the rest and each would throw away what the other built.
pub(crate) fn bpf(root: &Path) -> PathBuf {
    root.join("target/bpf")
}

/// Kernels of Debian, and what came of the machines that ran them.
pub(crate) fn kernels(root: &Path) -> PathBuf {
    root.join("target/kernels")
}

/// The agent as cargo leaves it.
pub(crate) fn agent(root: &Path, profile: Profile) -> PathBuf {
    let folder = match profile {
        Profile::Dev => "debug",
        Profile::Release => "release",
    };
    cargo_target(root).join(folder).join("agent")
}

/// The agent as cargo leaves it when it builds for a target.
pub(crate) fn static_agent(root: &Path, target: Target) -> PathBuf {
    cargo_target(root).join(target.triple()).join("release/agent")
}

fn cargo_target(root: &Path) -> PathBuf {
    root.join(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

/// Finds a program as a shell of root would, whoever we run as: servers live in folders that users do not search.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    programs_on_path(program).next()
}

/// Finds a program behind whose name Debian puts its version, as in `php-fpm8.2`.
pub(crate) fn with_version_on_path(program: &str) -> Option<PathBuf> {
    let files = folders().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    files.map(|file| file.path()).find(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let version = name.strip_prefix(program).unwrap_or_default();
        version.starts_with(|first: char| first.is_ascii_digit()) && path.is_file()
    })
}

/// Every program of that name, in the order of the search.
pub(crate) fn programs_on_path(program: &str) -> impl Iterator<Item = PathBuf> {
    folders().map(move |folder| folder.join(program)).filter(|file| file.is_file())
}

fn folders() -> impl Iterator<Item = PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .collect();
    folders.into_iter()
}
