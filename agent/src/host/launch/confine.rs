//! Gives this process the confinement of another one, in the order in which each step still has the rights that it needs.

use std::{fs::File, io, path::Path};

use nix::sys::personality::{self, Persona};
use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, open, openat2},
    io::Errno,
    thread::{
        CapabilitySet, CapabilitySets, CpuSet, capabilities, capability_is_in_bounding_set,
        configure_capability_in_ambient_set, remove_capability_from_bounding_set,
        sched_getaffinity, sched_setaffinity, set_capabilities, set_keep_capabilities,
        set_no_new_privs,
    },
};

use super::report::{Failure, Step};
use crate::{
    host::{
        confinement::{Capabilities, Confinement, Group},
        process::{Process, ProcessIdentity},
    },
    sys::{keyring, scheduling},
};

/// What only the first user namespace gives a right to, by paths of ours.
pub(super) fn join(confinement: &Confinement) -> Result<(), Failure> {
    let Confinement { groups, processors, scheduling: wanted, io_priority, .. } = confinement;
    groups.iter().try_for_each(join_group)?;
    // After the groups: joining a set of processors changes it.
    if let Some(processors) = processors {
        set_processors(processors)?;
    }
    let failed = |what| move |error: io::Error| Failure::new(Step::SetScheduling, what, error);
    scheduling::set(wanted).map_err(failed("policy"))?;
    scheduling::set_io_priority(*io_priority).map_err(failed("I/O priority"))?;
    keyring::new_session().map_err(|error| Failure::new(Step::NewKeyring, "", error))
}

fn join_group(group: &Group) -> Result<(), Failure> {
    let directory: &Path = group.directory.as_ref();
    std::fs::write(directory.join("cgroup.procs"), "0")
        .map_err(|error| Failure::new(Step::JoinCgroup, directory.display(), error))
}

fn set_processors(processors: &[u32]) -> Result<(), Failure> {
    let failed = |error: Errno| Failure::new(Step::SetScheduling, "processors", error);
    let mut wanted = CpuSet::new();
    for number in processors {
        wanted.set(usize::try_from(*number).unwrap_or(usize::MAX));
    }
    if sched_getaffinity(None).map_err(failed)? == wanted {
        return Ok(());
    }
    sched_setaffinity(None, &wanted).map_err(failed)
}

/// The directory that is to be the root, while it can be reached by a path of ours: with the mounts of the process whose
/// namespaces are entered, if there is one.
pub(super) fn open_root(
    confinement: &Confinement,
    namespaces_of: Option<ProcessIdentity>,
) -> Result<Option<File>, Failure> {
    let Some(root) = &confinement.root else { return Ok(None) };
    let failed = |error| Failure::new(Step::ChangeRoot, root.as_os_str().display(), error);
    let Some(identity) = namespaces_of else {
        return place_of_root(root.as_ref()).map(Some).map_err(failed);
    };
    let process = Process::reopen(identity).map_err(|error| failed(io::Error::other(error)))?;
    let opened = directory(Path::new(&format!("/proc/{}/root", identity.pid))).map_err(failed)?;
    // Its number is nobody else's as long as it lives.
    match process.is_alive() {
        Ok(true) => Ok(Some(opened)),
        Ok(false) => Err(failed(io::ErrorKind::NotFound.into())),
        Err(error) => Err(failed(io::Error::other(error))),
    }
}

/// Makes it the root; the working directory stays what it is.
pub(super) fn change_root(root: &File) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::new(Step::ChangeRoot, "", error);
    let working_directory = directory(Path::new(".")).map_err(failed)?;
    rustix::process::fchdir(root).map_err(|error| failed(error.into()))?;
    rustix::process::chroot(".").map_err(|error| failed(error.into()))?;
    rustix::process::fchdir(&working_directory).map_err(|error| failed(error.into()))
}

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

fn directory(path: &Path) -> io::Result<File> {
    Ok(File::from(open(path, DIRECTORY, Mode::empty())?))
}

/// The kernel told the path of a root directory, in which there was no link then. Whoever puts one there, which the server's user may
/// have the right to, would choose what its successor is confined to.
fn place_of_root(path: &Path) -> io::Result<File> {
    let opened = openat2(CWD, path, DIRECTORY, Mode::empty(), ResolveFlags::NO_SYMLINKS);
    match opened {
        Err(Errno::LOOP) => Err(io::Error::other("there is a link in its place now")),
        opened => Ok(File::from(opened?)),
    }
}

/// What is given up before the user is changed, while there is the right to.
pub(super) fn bound(confinement: &Confinement) -> Result<(), Failure> {
    let Confinement { capabilities: wanted, personality, .. } = confinement;
    personality::set(Persona::from_bits_retain((*personality).cast_signed()))
        .map_err(|error| Failure::new(Step::SetPersonality, personality, error))?;
    let failed = |error: Errno| Failure::new(Step::SetCapabilities, "bounding", error);
    for capability in all() {
        match capability_is_in_bounding_set(capability) {
            Ok(true) if wanted.bounding & capability.bits() == 0 => {
                remove_capability_from_bounding_set(capability).map_err(failed)?;
            }
            Ok(_) => {}
            // This kernel knows no more.
            Err(Errno::INVAL) => break,
            Err(error) => return Err(failed(error)),
        }
    }
    // A change of the user takes all away otherwise.
    if wanted.ambient | wanted.inheritable != 0 {
        set_keep_capabilities(true).map_err(failed)?;
    }
    Ok(())
}

/// What the program is executed with, by the user that it has.
pub(super) fn confine(confinement: &Confinement) -> Result<(), Failure> {
    let Confinement { capabilities: wanted, no_new_privileges, .. } = confinement;
    set_sets(*wanted)
        .map_err(|error| Failure::new(Step::SetCapabilities, "inheritable, ambient", error))?;
    if *no_new_privileges {
        set_no_new_privs(true)
            .map_err(|error| Failure::new(Step::SetCapabilities, "no new privileges", error))?;
    }
    Ok(())
}

fn set_sets(wanted: Capabilities) -> rustix::io::Result<()> {
    let now = capabilities(None)?;
    let inheritable = CapabilitySet::from_bits_retain(wanted.inheritable);
    let ambient = CapabilitySet::from_bits_retain(wanted.ambient);
    if now.inheritable == inheritable && ambient.is_empty() {
        return Ok(());
    }
    // Root executes with all that the bounding set allows, whatever is permitted now.
    let permitted = if now.effective.is_empty() { ambient } else { now.permitted };
    set_capabilities(None, CapabilitySets { effective: permitted, permitted, inheritable })?;
    let mut raised = all().filter(|it| ambient.contains(*it));
    raised.try_for_each(|it| configure_capability_in_ambient_set(it, true))
}

/// Every capability that there may be, one by one.
fn all() -> impl Iterator<Item = CapabilitySet> {
    (0..u64::BITS).map(|number| CapabilitySet::from_bits_retain(1 << number))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn a_link_in_the_place_of_a_root_directory_is_not_followed() {
        let ours = tempfile::tempdir().unwrap();
        let above = ours.path().canonicalize().unwrap().join("above");
        let root = above.join("root");
        fs::create_dir_all(&root).unwrap();
        assert!(place_of_root(&root).is_ok());
        let link = above.join("link");
        symlink("/", &link).unwrap();
        let refused = place_of_root(&link).unwrap_err();
        assert!(refused.to_string().contains("a link in its place"), "{refused}");
        fs::rename(&above, ours.path().join("elsewhere")).unwrap();
        symlink(ours.path().join("elsewhere"), &above).unwrap();
        assert!(place_of_root(&root).is_err(), "nor one above it");
    }
}
