//! Limits that a server lowered for itself once it ran, and under which its successor could not start.
//!
//! `/proc/PID/limits` shows what is in force now, not what the process was started with. A server that will need no more
//! processes, files or memory may give up the right to any (haproxy sets `RLIMIT_NPROC` to 0); the next one needs them again.

use std::fs;

use crate::host::{
    limit::{Limit, Resource},
    process::{Pid, ProcessError, status},
    process_table::ProcessTable,
};

/// What a process and its user use now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// One more than the highest number of a descriptor.
    pub descriptors: u64,
    /// Bytes of address space.
    pub address_space: u64,
    /// Bytes of data.
    pub data: u64,
    /// Bytes of locked memory.
    pub locked: u64,
}

impl Usage {
    /// Of a process.
    ///
    /// # Errors
    ///
    /// When it is gone, or may not be looked at.
    pub fn of(pid: Pid) -> Result<Self, ProcessError> {
        let status = status(pid)?;
        let bytes = |kilobytes: Option<u64>| kilobytes.unwrap_or(0).saturating_mul(1024);
        let highest = fs::read_dir(format!("/proc/{pid}/fd"))
            .map_err(|error| ProcessError::reading(pid, "the descriptors", error.into()))?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u64>().ok())
            .max();
        Ok(Self {
            descriptors: highest.map_or(0, |highest| highest + 1),
            address_space: bytes(status.vmsize),
            data: bytes(status.vmdata),
            locked: bytes(status.vmlck),
        })
    }

    /// What a successor needs at least; nothing where that cannot be told.
    fn of_resource(&self, resource: Resource) -> u64 {
        match resource {
            Resource::Nofile => self.descriptors.max(1),
            Resource::As => self.address_space.max(1),
            Resource::Data => self.data.max(1),
            Resource::Memlock => self.locked,
            // Nothing can be started, written or run for any time without.
            Resource::Nproc | Resource::Fsize | Resource::Stack | Resource::Cpu => 1,
            Resource::Core
            | Resource::Rss
            | Resource::Locks
            | Resource::Sigpending
            | Resource::Msgqueue
            | Resource::Nice
            | Resource::Rtprio
            | Resource::Rttime => 0,
        }
    }
}

/// A limit that is not taken over as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// As it is for the running server.
    pub limit: Limit,
    /// What its successor needs at least.
    pub needed: u64,
    /// What its successor gets; `None`: what the agent itself has.
    pub instead: Option<Limit>,
}

/// The limits as a successor of a server with this usage can start under them, and those that had to change.
pub fn fitting(limits: &[Limit], usage: &Usage) -> (Vec<Limit>, Vec<Unfit>) {
    with_room(limits, |resource| usage.of_resource(resource))
}

/// The limits with room for so many tasks of the user, and those that had to change.
pub fn with_tasks(limits: &[Limit], tasks: u64) -> (Vec<Limit>, Vec<Unfit>) {
    with_room(limits, |resource| if resource == Resource::Nproc { tasks } else { 0 })
}

/// A soft limit that is too low is raised to the hard one if that is enough: the server may do that by itself.
fn with_room(limits: &[Limit], needed: impl Fn(Resource) -> u64) -> (Vec<Limit>, Vec<Unfit>) {
    let (mut kept, mut changed) = (Vec::new(), Vec::new());
    for limit in limits {
        let needed = needed(limit.resource);
        let suffices = |value: Option<u64>| value.is_none_or(|value| value >= needed);
        if suffices(limit.soft) {
            kept.push(*limit);
            continue;
        }
        let instead = suffices(limit.hard).then_some(Limit { soft: limit.hard, ..*limit });
        kept.extend(instead);
        changed.push(Unfit { limit: *limit, needed, instead });
    }
    (kept, changed)
}

/// How many processes and threads this user has, as far as more than `enough` matter: the whole machine is looked through
/// only if all that it runs would be too many.
///
/// # Errors
///
/// When the processes cannot be listed.
pub fn tasks_of_user(uid: u32, enough: u64) -> Result<u64, ProcessError> {
    if let Some(all) = tasks_of_machine().filter(|all| *all <= enough) {
        return Ok(all);
    }
    let table = ProcessTable::read()?;
    Ok(table.rows().filter(|row| row.real_user == uid).map(|row| u64::from(row.threads)).sum())
}

/// From the fourth word of `/proc/loadavg`: running/existing.
fn tasks_of_machine() -> Option<u64> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    text.split_ascii_whitespace().nth(3)?.split_once('/')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn limit(resource: Resource, soft: u64, hard: u64) -> Limit {
        Limit { resource, soft: Some(soft), hard: Some(hard) }
    }

    #[test]
    fn a_limit_below_what_is_used_is_not_taken_over() {
        let usage = Usage { descriptors: 12, address_space: 5000, data: 300, locked: 0 };
        let ours = [
            limit(Resource::Nproc, 0, 0),
            limit(Resource::Fsize, 0, 0),
            limit(Resource::Nofile, 11, 11),
            limit(Resource::As, 4000, 4000),
            limit(Resource::Stack, 0, 0),
            limit(Resource::Memlock, 0, 0),
            limit(Resource::Core, 0, 0),
            limit(Resource::Data, 300, 300),
        ];
        let (kept, changed) = fitting(&ours, &usage);
        assert_eq!(kept, ours[5..]);
        let changed: Vec<_> = changed.iter().map(|it| (it.limit.resource, it.instead)).collect();
        let expected = ours[..5].iter().map(|it| (it.resource, None)).collect::<Vec<_>>();
        assert_eq!(changed, expected);
    }

    #[test]
    fn what_the_server_may_raise_by_itself_is_raised_no_further() {
        let ours = [limit(Resource::Nofile, 3, 64)];
        let (kept, changed) = fitting(&ours, &Usage { descriptors: 10, ..Usage::default() });
        assert_eq!(kept, [limit(Resource::Nofile, 64, 64)]);
        assert_eq!(changed[0].instead, Some(kept[0]));
    }

    #[test]
    fn two_servers_must_fit_beside_each_other() {
        let ours = [limit(Resource::Nproc, 30, 30), limit(Resource::Nofile, 1, 1)];
        assert_eq!(with_tasks(&ours, 30).0, ours);
        let (kept, changed) = with_tasks(&ours, 31);
        assert_eq!(kept, ours[1..]);
        assert_eq!(changed, [Unfit { limit: ours[0], needed: 31, instead: None }]);
    }

    #[test]
    fn our_own_use_fits_our_own_limits() {
        let context = crate::host::context::Context::of(Pid::ours(), Pid::ours()).unwrap();
        let usage = Usage::of(Pid::ours()).unwrap();
        assert!(usage.descriptors > 2 && usage.address_space > 0);
        assert_eq!(fitting(&context.limits, &usage), (context.limits.clone(), Vec::new()));
        let uid = context.uid;
        // How many there are changes all the time.
        assert!(tasks_of_user(uid, 0).unwrap() >= 1);
        assert!(tasks_of_user(uid, u64::MAX).unwrap() >= 1);
    }
}
