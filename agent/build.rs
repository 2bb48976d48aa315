//! Embeds the kernel programs, which `cargo xtask build` compiles, and refuses to embed ones older than their sources.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
    time::SystemTime,
};

fn main() -> ExitCode {
    match embed() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            println!("cargo::error={why}; run `cargo xtask build`");
            ExitCode::FAILURE
        }
    }
}

fn embed() -> Result<(), String> {
    let manifest = env::var_os("CARGO_MANIFEST_DIR").ok_or("no CARGO_MANIFEST_DIR")?;
    let workspace = Path::new(&manifest).parent().ok_or("no workspace")?.to_owned();
    let object = workspace.join("target/bpf/agent-ebpf.o");
    // What cargo made; the object beside it keeps its time when its content stays the same.
    let compiled = workspace.join("target/bpf/bpfel-unknown-none/release/agent-ebpf");
    let sources = workspace.join("agent-ebpf/src");
    for watched in [&object, &sources] {
        println!("cargo::rerun-if-changed={}", watched.display());
    }
    let built = modified(&compiled)
        .map_err(|error| format!("the kernel programs are not built: {error}"))?;
    let changed =
        newest(&sources).map_err(|error| format!("cannot read agent-ebpf/src: {error}"))?;
    if changed > built {
        return Err("the kernel programs are older than agent-ebpf/src".to_owned());
    }
    println!("cargo::rustc-env=AGENT_EBPF_OBJECT={}", object.display());
    Ok(())
}

fn newest(directory: &Path) -> io::Result<SystemTime> {
    let mut newest = SystemTime::UNIX_EPOCH;
    for entry in fs::read_dir(directory)? {
        let path: PathBuf = entry?.path();
        newest = newest.max(modified(&path)?);
    }
    Ok(newest)
}

fn modified(path: &Path) -> io::Result<SystemTime> {
    fs::metadata(path)?.modified()
}
