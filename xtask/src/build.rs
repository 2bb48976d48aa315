//! `cargo xtask build`: the eBPF programs, then the workspace, which has them inside.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::Command,
    time::SystemTime,
};

use anyhow::{Context, Result};

use crate::{
    command,
    layout::{self, Profile, Target},
    setup,
};

/// What a build leaves behind.
#[derive(Debug)]
pub(crate) struct Build {
    /// The agent's binary.
    pub(crate) agent: PathBuf,
}

/// Builds everything.
///
/// # Errors
///
/// When something needed cannot be installed, and when the code does not compile.
pub(crate) fn run(root: &Path, profile: Profile) -> Result<Build> {
    setup::for_build(root)?;
    programs(root)?;
    let mut build = command::cargo(root);
    build.args(["build", "--workspace"]);
    if profile == Profile::Release {
        build.arg("--release");
    }
    command::run(&mut build)?;
    Ok(Build { agent: layout::agent(root, profile) })
}

/// Builds a static agent for a target, and the guest that tries it in virtual machines.
///
/// Both at once: cargo would build what they share again for another selection of packages. They are carried elsewhere,
/// so that they come without symbols.
///
/// # Errors
///
/// As [`run`].
pub(crate) fn for_target(root: &Path, target: Target) -> Result<Build> {
    setup::for_target(root, target)?;
    programs(root)?;
    let triple = target.triple();
    let linker = format!("CARGO_TARGET_{}_LINKER", triple.to_uppercase().replace('-', "_"));
    command::run(
        command::cargo(root)
            .args(["build", "--release", "--target", triple])
            .args(["--package", "agent", "--bin", "agent", "--package", "tests", "--bin", "guest"])
            // The compiler brings this one along, for all targets, and what it links is all Rust.
            .env(linker, "rust-lld")
            .env("CARGO_PROFILE_RELEASE_STRIP", "symbols"),
    )?;
    Ok(Build { agent: layout::static_agent(root, target) })
}

/// Builds the eBPF objects to the places where the agent's build script and the tests take them from.
///
/// # Errors
///
/// When the programs do not compile or link.
pub(crate) fn programs(root: &Path) -> Result<()> {
    command::run(&mut cargo_for_bpf(root, "build"))?;
    let bpf = layout::bpf(root);
    ["agent-ebpf", "yardsticks"].into_iter().try_for_each(|object| {
        let built = bpf.join("bpfel-unknown-none/release").join(object);
        // Cargo leaves it as it is when only a source has changed that user space alone compiles; the build script goes by time.
        #[expect(clippy::disallowed_methods, reason = "files have the time of day")]
        let now = SystemTime::now();
        fs::File::options().append(true).open(&built)?.set_modified(now)?;
        replace_if_changed(&built, &bpf.join(format!("{object}.o")))
    })
}

/// A cargo command on the eBPF programs, with all that their target needs.
///
/// The pinned compiler is a stable one. `RUSTC_BOOTSTRAP` lets it build `core` for a target that has none to download,
/// so that no second, moving toolchain is involved.
pub(crate) fn cargo_for_bpf(root: &Path, subcommand: &str) -> Command {
    let mut cargo = command::cargo(root);
    cargo
        .arg(subcommand)
        .args(["--package", "agent-ebpf", "--bins", "--features", "programs", "--release"])
        .args(["--target", "bpfel-unknown-none", "-Z", "build-std=core"])
        .arg("--target-dir")
        .arg(layout::bpf(root))
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", layout::bpf_linker(root))
        // The encoded form wins over `RUSTFLAGS`, which the linker for BPF would not understand.
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags());
    // The workspace's release profile is for user space. The kernel loads one object, without unwinding, and its
    // verifier is happiest with code that was optimised as a whole.
    for (key, value) in [
        ("LTO", "fat"),
        ("CODEGEN_UNITS", "1"),
        ("OPT_LEVEL", "3"),
        ("PANIC", "abort"),
        ("DEBUG", "2"),
    ] {
        cargo.env(format!("CARGO_PROFILE_RELEASE_{key}"), value);
    }
    cargo
}

/// The type information (BTF) comes from the debug information. The architecture decides about the layout of registers.
fn rustflags() -> String {
    let architecture = format!("--cfg=bpf_target_arch=\"{}\"", env::consts::ARCH);
    // The third version of the instruction set is the first whose atomic addition returns the value before.
    [architecture.as_str(), "-Cdebuginfo=2", "-Ctarget-cpu=v3", "-Clink-arg=--btf"].join("\u{1f}")
}

/// Leaves the file alone when the content is the same: its time tells cargo whether to build the agent again.
fn replace_if_changed(new: &Path, old: &Path) -> Result<()> {
    let content = fs::read(new).with_context(|| format!("read `{}`", new.display()))?;
    match fs::read(old) {
        Ok(before) if before == content => return Ok(()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("read `{}`", old.display())),
    }
    fs::write(old, content).with_context(|| format!("write `{}`", old.display()))
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        time::{Duration, SystemTime},
    };

    use super::replace_if_changed;

    #[test]
    fn the_same_content_keeps_its_time() {
        let folder = tempfile::tempdir().unwrap();
        let (new, old) = (folder.path().join("new"), folder.path().join("old"));
        fs::write(&new, "content").unwrap();
        replace_if_changed(&new, &old).unwrap();
        let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        fs::File::open(&old).unwrap().set_modified(long_ago).unwrap();

        replace_if_changed(&new, &old).unwrap();
        assert_eq!(fs::metadata(&old).unwrap().modified().unwrap(), long_ago);

        fs::write(&new, "other").unwrap();
        replace_if_changed(&new, &old).unwrap();
        assert_eq!(fs::read_to_string(&old).unwrap(), "other");
        assert_ne!(fs::metadata(&old).unwrap().modified().unwrap(), long_ago);
    }
}
