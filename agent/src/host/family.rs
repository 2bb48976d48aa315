//! Who was born of whom.

use std::collections::{HashMap, HashSet};

use super::{
    holders::all_pids,
    process::{Pid, ProcessError, command_line, stat, user_of},
};

/// Everybody who lives, by parent.
#[derive(Debug, Default)]
pub struct Families {
    children: HashMap<i32, Vec<Pid>>,
    parents: HashMap<Pid, i32>,
}

impl Families {
    /// As they are now.
    ///
    /// # Errors
    ///
    /// When the processes cannot be listed.
    pub fn now() -> Result<Self, ProcessError> {
        let mut families = Self::default();
        for pid in all_pids()? {
            match stat(pid) {
                Ok(stat) => {
                    families.children.entry(stat.ppid).or_default().push(pid);
                    families.parents.insert(pid, stat.ppid);
                }
                Err(ProcessError::Gone { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(families)
    }

    /// These and all that were born of them and have not been orphaned on the way.
    pub fn with_descendants(&self, pids: impl IntoIterator<Item = Pid>) -> Vec<Pid> {
        let mut found: Vec<Pid> = pids.into_iter().collect();
        let mut known: HashSet<Pid> = found.iter().copied().collect();
        let mut next = 0;
        while let Some(pid) = found.get(next) {
            next += 1;
            let children = self.children.get(&pid.get()).into_iter().flatten().copied();
            let new: Vec<_> = children.filter(|child| known.insert(*child)).collect();
            found.extend(new);
        }
        found
    }

    /// The master of these workers, which holds nothing itself and replaces those that end: their common parent, of the same
    /// user, all of whose children are workers with the same command line. One worker alone does not tell: whoever started
    /// it may have nothing to do with it. Nobody above ourselves is a server's master.
    pub fn master_of(&self, workers: &[Pid]) -> Option<Pid> {
        let (first, others) = workers.split_first()?;
        let parent = Pid::new(*self.parents.get(first)?).filter(|parent| parent.get() > 1)?;
        let siblings = self.children.get(&parent.get())?;
        let command = command_line(*first).ok().filter(|words| !words.is_empty())?;
        let alike = |pid: &Pid| command_line(*pid).is_ok_and(|words| words == command);
        let theirs = !others.is_empty()
            && workers.iter().all(|worker| siblings.contains(worker))
            && siblings.iter().all(|sibling| workers.contains(sibling) || alike(sibling))
            && workers.iter().all(alike);
        let same_user = user_of(parent).ok()? == user_of(*first).ok()?;
        (theirs && same_user && !self.is_above_us(parent)).then_some(parent)
    }

    fn is_above_us(&self, pid: Pid) -> bool {
        let parent_of = |pid: &Pid| self.parents.get(pid).copied().and_then(Pid::new);
        std::iter::successors(Some(Pid::ours()), parent_of).any(|ancestor| ancestor == pid)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader},
        process::{Command, Stdio},
    };

    use super::*;

    /// A shell with children, which ends with all of them when its input does.
    fn family(script: &str) -> (std::process::Child, Pid) {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{script}; echo; read line; kill $(jobs -p)")]);
        let mut shell = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        BufReader::new(shell.stdout.as_mut().unwrap()).read_line(&mut String::new()).unwrap();
        let pid = Pid::new(shell.id().cast_signed()).unwrap();
        (shell, pid)
    }

    #[test]
    fn descendants_are_found_however_deep() {
        let (mut shell, pid) = family("sh -c 'sleep 61; true' & sleep 62 &");
        let family = Families::now().unwrap().with_descendants([pid]);
        assert_eq!(family[0], pid);
        // The shell, its two children, and in time the grandchild, which the inner shell has to start first.
        assert!(family.len() >= 3, "{family:?}");
        drop(shell.stdin.take());
        shell.wait().unwrap();
    }

    #[test]
    fn a_master_is_known_by_several_workers_and_nothing_else_beside_them() {
        for (script, workers, expected) in [
            ("sleep 63 & sleep 63 &", 2, true),
            ("sleep 63 &", 1, false),
            ("sleep 63 & sleep 63 & sleep 64 &", 2, false),
        ] {
            let (mut shell, pid) = family(script);
            let families = Families::now().unwrap();
            let of_shell = families.with_descendants([pid]);
            let found = families.master_of(&of_shell[1..=workers]);
            assert_eq!(found, expected.then_some(pid), "{script}");
            drop(shell.stdin.take());
            shell.wait().unwrap();
        }
    }

    #[test]
    fn nobody_above_us_is_a_master() {
        let mut children = [0, 1].map(|_| Command::new("sleep").arg("65").spawn().unwrap());
        let pids = children.each_ref().map(|it| Pid::new(it.id().cast_signed()).unwrap());
        assert_eq!(Families::now().unwrap().master_of(&pids), None);
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}
