//! BPF programs that decide over what the processes of a group do, given to another group.
//!
//! `DeviceAllow=`, `IPAddressDeny=`, `SocketBindDeny=` and `RestrictNetworkInterfaces=` of systemd are such programs of a unit's group.

use std::{fmt, fs::File, io, os::fd::AsFd};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::{Cgroup, CgroupError};
use crate::sys::group_programs;

/// A program that the kernel asks about what processes of a group do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// What it is asked about (`enum bpf_attach_type`).
    pub attach_type: u32,
    /// Its number, which the kernel gives to no other one for a long time (`idr_alloc_cyclic`).
    pub id: u32,
    /// As whoever loaded it calls it.
    #[serde(default)]
    pub name: String,
}

impl Program {
    /// What it is asked about, as `bpftool cgroup tree` writes it.
    pub fn kind(&self) -> &'static str {
        let known = KINDS.into_iter().find(|(number, _)| *number == self.attach_type);
        known.map_or("unknown", |(_, name)| name)
    }

    /// Whether the kernel runs it at the same places as another one.
    fn is(&self, other: &Self) -> bool {
        (self.attach_type, self.id) == (other.attach_type, other.id)
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (program {}", self.kind(), self.id)?;
        if !self.name.is_empty() {
            write!(f, ", `{}`", self.name)?;
        }
        f.write_str(")")
    }
}

/// One that could not be attached, and why.
pub type Refused = (Program, io::Error);

/// Those of these that are not among others.
pub fn without<'a>(programs: &'a [Program], others: &[Program]) -> Vec<&'a Program> {
    programs.iter().filter(|it| !others.iter().any(|other| other.is(it))).collect()
}

impl Cgroup {
    /// The programs that are asked about its processes, its own and those of groups above, in the order in which they run.
    ///
    /// # Errors
    ///
    /// When the kernel does not say.
    ///
    /// # Kernel
    ///
    /// A kind that it does not know, or was built without (`CONFIG_CGROUP_BPF`), it answers with `EINVAL`.
    pub fn programs(&self) -> Result<Vec<Program>, CgroupError> {
        let failed = |source| self.failed("ask for the BPF programs of", source);
        let group = File::open(&self.directory).map_err(failed)?;
        let mut programs = Vec::new();
        for (attach_type, _) in KINDS {
            match group_programs::effective(&group, attach_type) {
                Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => {}
                answer => programs
                    .extend(answer.map_err(failed)?.into_iter().map(|id| program(attach_type, id))),
            }
        }
        Ok(programs)
    }

    /// Attaches those of these programs that are not asked about its processes yet. Returns those that cannot be.
    ///
    /// # Errors
    ///
    /// When the kernel does not say which there are.
    pub fn carry(&self, programs: &[Program]) -> Result<Vec<Refused>, CgroupError> {
        let group = File::open(&self.directory).map_err(|error| self.failed("open", error))?;
        let mut refused = Vec::new();
        for program in without(programs, &self.programs()?) {
            if let Err(error) = attach(&group, program) {
                refused.push((program.clone(), error));
            }
        }
        // A program that allows no others is asked no more where one below it is attached (`compute_effective_progs`).
        for program in without(programs, &self.programs()?) {
            if !refused.iter().any(|(known, _)| known.is(program)) {
                refused
                    .push((program.clone(), io::Error::other("another program is in its place")));
            }
        }
        Ok(refused)
    }
}

fn program(attach_type: u32, id: u32) -> Program {
    let name = group_programs::by_id(id).and_then(group_programs::name).unwrap_or_default();
    Program { attach_type, id, name }
}

fn attach(group: impl AsFd, program: &Program) -> io::Result<()> {
    // Which of many hooks such a one is for, and in which order those of one run, is not to be told from outside.
    if program.attach_type == LSM {
        return Err(io::Error::other("one of a security module's hooks is not carried"));
    }
    group_programs::attach(group, group_programs::by_id(program.id)?, program.attach_type)
}

/// `BPF_LSM_CGROUP`
const LSM: u32 = 43;

/// All that a program of a group can be asked about (`enum bpf_attach_type`). Others are not asked for: some take the number of
/// an interface where these take a descriptor.
const KINDS: [(u32, &str); 29] = [
    (0, "cgroup_inet_ingress"),
    (1, "cgroup_inet_egress"),
    (2, "cgroup_inet_sock_create"),
    (3, "cgroup_sock_ops"),
    (6, "cgroup_device"),
    (8, "cgroup_inet4_bind"),
    (9, "cgroup_inet6_bind"),
    (10, "cgroup_inet4_connect"),
    (11, "cgroup_inet6_connect"),
    (12, "cgroup_inet4_post_bind"),
    (13, "cgroup_inet6_post_bind"),
    (14, "cgroup_udp4_sendmsg"),
    (15, "cgroup_udp6_sendmsg"),
    (18, "cgroup_sysctl"),
    (19, "cgroup_udp4_recvmsg"),
    (20, "cgroup_udp6_recvmsg"),
    (21, "cgroup_getsockopt"),
    (22, "cgroup_setsockopt"),
    (29, "cgroup_inet4_getpeername"),
    (30, "cgroup_inet6_getpeername"),
    (31, "cgroup_inet4_getsockname"),
    (32, "cgroup_inet6_getsockname"),
    (34, "cgroup_inet_sock_release"),
    (LSM, "lsm_cgroup"),
    (49, "cgroup_unix_connect"),
    (50, "cgroup_unix_sendmsg"),
    (51, "cgroup_unix_recvmsg"),
    (52, "cgroup_unix_getpeername"),
    (53, "cgroup_unix_getsockname"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn named(attach_type: u32, id: u32, name: &str) -> Program {
        Program { attach_type, id, name: name.to_owned() }
    }

    #[test]
    fn one_is_known_by_its_number_and_by_what_it_is_asked_about() {
        let device = named(6, 17, "sd_devices");
        assert_eq!(device.to_string(), "cgroup_device (program 17, `sd_devices`)");
        assert_eq!(named(10, 3, "").to_string(), "cgroup_inet4_connect (program 3)");
        let all = [device, named(0, 17, ""), named(6, 18, "")];
        assert_eq!(without(&all, &[named(6, 17, "")]), [&all[1], &all[2]]);
        assert_eq!(without(&all, &all), Vec::<&Program>::new());
    }

    #[test]
    fn one_that_is_gone_or_of_a_security_module_is_refused() {
        let Ok(hierarchy) = super::super::Hierarchy::find() else { return };
        let path = format!("agent-test-{}-programs", std::process::id());
        let Ok(group) = hierarchy.create(path.as_ref()) else { return };
        let refused = group.carry(&[named(6, u32::MAX - 1, "gone"), named(LSM, 1, "")]);
        group.remove().unwrap();
        // Without the right to ask there is nothing to see here.
        let Ok(refused) = refused else { return };
        assert_eq!(refused.len(), 2, "{refused:?}");
        assert_eq!(refused[0].1.raw_os_error(), Some(Errno::NOENT.raw_os_error()));
    }
}
