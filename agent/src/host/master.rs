//! Who starts the workers of a server anew, and holds none of its listeners.

use super::{
    image::{self, Image},
    kin::{told_children, user_of},
    process::{Pid, ProcessError, command_line, stat},
    supervisor::Kind,
};

/// The master of these workers: their common parent, of their user or of the one who made their listener, and
///
/// - of the same program with the same command line, or forked and never executed: they are one server;
/// - or the parent of several processes with the workers' command line, and of nobody else; some may not listen yet. One worker
///   alone does not tell: whoever started it may have nothing to do with it.
///
/// Whom `may_be` excludes is none.
///
/// # Errors
///
/// When the machine's processes cannot be listed.
pub fn master_of(
    workers: &[Pid],
    owner: Option<u32>,
    may_be: impl FnOnce(Pid) -> bool,
) -> Result<Option<Pid>, ProcessError> {
    let Some(parent) = common_parent(workers) else { return Ok(None) };
    if Kind::of(parent).is_some() || !is_of_user(parent, workers[0], owner) || !may_be(parent) {
        return Ok(None);
    }
    let is_master = are_one_program(parent, workers) || has_only_workers(parent, workers[0])?;
    Ok(is_master.then_some(parent))
}

/// That of all of them, unless they were orphaned.
fn common_parent(workers: &[Pid]) -> Option<Pid> {
    const FIRST: i32 = 1;
    let parent = |pid: &Pid| stat(*pid).ok().map(|stat| stat.ppid);
    let common = workers.first().and_then(parent).filter(|it| *it != FIRST)?;
    workers.iter().filter_map(parent).all(|it| it == common).then_some(common).and_then(Pid::new)
}

fn is_of_user(parent: Pid, worker: Pid, owner: Option<u32>) -> bool {
    user_of(parent)
        .is_ok_and(|user| Some(user) == owner || user_of(worker).is_ok_and(|it| it == user))
}

/// A master that has executed itself anew since (haproxy, to free what it needed to start) still has the command line that its
/// workers were forked with.
fn are_one_program(parent: Pid, workers: &[Pid]) -> bool {
    let about = |pid: Pid| Some((Image::of(pid).ok()?, command_line(pid).ok()?));
    let Some((image, command)) = about(parent) else { return false };
    let forked = image::tells_forks();
    workers.iter().filter_map(|worker| about(*worker)).all(|(theirs, their_command)| {
        forked && theirs == image
            || theirs.program == image.program && their_command == command && !command.is_empty()
    })
}

fn has_only_workers(parent: Pid, worker: Pid) -> Result<bool, ProcessError> {
    let worker = command_line(worker).unwrap_or_default();
    let children = told_children(parent)?;
    Ok(children.len() > 1 && children.iter().all(|(_, command)| *command == worker))
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader},
        process::{Child, Command, Stdio},
    };

    use super::{super::process_table::ProcessTable, *};

    /// A shell with children, which ends with all of them when its input does.
    struct Family {
        shell: Child,
        pid: Pid,
    }

    impl Family {
        fn new(script: &str) -> Self {
            let mut shell = Command::new("sh");
            shell.args(["-c", &format!("{script}\necho; read line; kill $(jobs -p)")]);
            let mut shell = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            let mut line = String::new();
            BufReader::new(shell.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
            assert_eq!(line, "\n", "{script}");
            let pid = Pid::new(shell.id().cast_signed()).unwrap();
            Self { shell, pid }
        }

        /// Its children, as soon as there are so many and `sleep` runs in all that are to run it: they are shells until then.
        fn children(&self, all: usize, sleeping: usize) -> Vec<Pid> {
            let sleeps =
                |pid: &Pid| command_line(*pid).is_ok_and(|it| it.first() == Some(&"sleep".into()));
            loop {
                let mut found = ProcessTable::read().unwrap().with_descendants(&[self.pid]);
                found.retain(|it| *it != self.pid);
                if found.len() == all && found.iter().filter(|it| sleeps(it)).count() == sleeping {
                    return found;
                }
                std::thread::yield_now();
            }
        }
    }

    impl Drop for Family {
        fn drop(&mut self) {
            drop(self.shell.stdin.take());
            self.shell.wait().unwrap();
        }
    }

    /// The shell's second process waits for the end of its input too; what is in the background has another one otherwise.
    const WAITS_IN_A_FORK: &str = "exec 3<&0; (read line <&3; :) &";

    fn master(workers: &[Pid]) -> Option<Pid> {
        master_of(workers, None, |_| true).unwrap()
    }

    #[test]
    fn a_master_of_another_program_has_several_workers_and_nothing_else_beside_them() {
        for (script, workers, others, expected) in [
            ("sleep 63 & sleep 63 &", 2, 0, true),
            ("sleep 63 &", 1, 0, false),
            ("sleep 63 & sleep 63 & sleep 64 &", 2, 1, false),
            ("sleep 63 & sleep 64 &", 1, 1, false),
        ] {
            let family = Family::new(script);
            let all = workers + others;
            let mut found = family.children(all, all);
            found.retain(|it| command_line(*it).unwrap().last() == Some(&"63".into()));
            assert_eq!(found.len(), workers);
            assert_eq!(master(&found), expected.then_some(family.pid), "{script}");
            assert_eq!(master(&found[..1]), expected.then_some(family.pid), "one listens");
            assert_eq!(master_of(&found, None, |_| false).unwrap(), None, "{script}");
        }
    }

    #[test]
    fn who_forked_one_worker_without_a_program_of_its_own_is_its_master() {
        let family = Family::new(WAITS_IN_A_FORK);
        let found = family.children(1, 0);
        assert_eq!(master(&found), Some(family.pid));
    }

    #[test]
    fn another_user_is_no_master_unless_the_listener_is_theirs() {
        let family = Family::new(WAITS_IN_A_FORK);
        let found = family.children(1, 0);
        let user = user_of(family.pid).unwrap();
        assert!(is_of_user(family.pid, found[0], None));
        let stranger = Pid::new(2).filter(|it| user_of(*it).is_ok_and(|other| other != user));
        if let Some(stranger) = stranger {
            assert!(!is_of_user(family.pid, stranger, None));
            assert!(is_of_user(family.pid, stranger, Some(user)));
        }
    }
}
