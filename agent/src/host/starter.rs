//! Who started a server, and may start it again when it ends.
//!
//! A supervisor that somebody wrote (a loop in a shell, a parent in Python) looks like a script that only waits for the server,
//! until it starts the server a second time. So those above a server are remembered, and looked at again when it has ended.

use std::{collections::HashSet, time::Duration};

use procfs::process::Stat;
use serde::{Deserialize, Serialize};

use super::{
    kin::{ancestors, told_children, user_of, with_descendants},
    os_text::OsText,
    process::{Pid, Process, ProcessError, ProcessIdentity, command_line, stat},
    supervisor::Kind,
};

/// A process above a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Starter {
    process: ProcessIdentity,
    /// The command line of its child that is the server's first process, or is above that.
    child: Vec<OsText>,
    /// That of the server's first process.
    server: Vec<OsText>,
}

impl Starter {
    /// Those above a server's first process, nearest first, who could start it as it is: its user, the `owner` of its listener,
    /// or root. Beyond a terminal's shell there is a person, beyond a known supervisor nobody has to be guessed, and whom
    /// `may_be` excludes is none. Whoever gives each of its children a session of its own starts many things, as `cron` and
    /// `tmux` do: only the parent itself may have done that, without a terminal.
    ///
    /// # Errors
    ///
    /// When the server is gone.
    pub fn above(
        root: Pid,
        owner: Option<u32>,
        may_be: impl Fn(Pid) -> bool,
    ) -> Result<Vec<Self>, ProcessError> {
        /// A wrapper of the server, what starts that, and one more.
        const MOST: usize = 3;
        let (user, server) = (user_of(root)?, command_line(root)?);
        let mut found = Vec::new();
        let mut child = root;
        for pid in ancestors(root)?.into_iter().take(MOST) {
            let could = |it: u32| it == user || Some(it) == owner || it == ROOT;
            let is_user = user_of(pid).is_ok_and(could);
            if pid.get() == FIRST || !is_user || Kind::of(pid).is_some() || !may_be(pid) {
                break;
            }
            let (Ok(process), Ok(command)) = (Process::open(pid), command_line(child)) else {
                break;
            };
            let (Ok(above), Ok(below)) = (stat(pid), stat(child)) else { break };
            let begins_session = above.session != below.session;
            if is_shell_of_terminal(&above)
                || begins_session && (child != root || below.tty_nr != 0)
            {
                break;
            }
            found.push(Self {
                process: process.identity(),
                child: command,
                server: server.clone(),
            });
            if begins_session {
                break;
            }
            child = pid;
        }
        Ok(found)
    }

    /// Its number.
    pub const fn pid(&self) -> Pid {
        self.process.pid
    }

    /// Whether it is still there.
    ///
    /// # Errors
    ///
    /// When that cannot be found out.
    pub fn lives(&self) -> Result<bool, ProcessError> {
        Process::lives(self.process)
    }

    /// Its children that are the server as it was started before, except those that are known. None if it has started
    /// anything else: that would end with it.
    ///
    /// # Errors
    ///
    /// When the machine's processes cannot be listed.
    pub fn started_again(&self, known: &HashSet<Pid>) -> Result<Vec<Pid>, ProcessError> {
        if !self.lives()? {
            return Ok(Vec::new());
        }
        let children = told_children(self.pid())?;
        if children.iter().any(|(_, command)| *command != self.child) {
            return Ok(Vec::new());
        }
        let mut new: Vec<_> = children.into_iter().map(|(pid, _)| pid).collect();
        new.retain(|pid| !known.contains(pid));
        if self.child != self.server && !new.is_empty() {
            let runs_server = |pid: Pid| command_line(pid).is_ok_and(|it| it == self.server);
            if !with_descendants(&new)?.into_iter().any(runs_server) {
                new.clear();
            }
        }
        Ok(new)
    }
}

/// Whether a process was born soon after the first of these: a master that starts its workers starts them one after the other,
/// and who comes much later may be another version.
pub fn is_of_same_start(pid: Pid, others: &[Pid]) -> bool {
    const SOON: Duration = Duration::from_secs(10);
    let age = |pid: Pid| Process::open(pid).and_then(|process| process.age()).ok();
    let first = others.iter().filter_map(|pid| age(*pid)).max();
    first.zip(age(pid)).is_some_and(|(first, age)| first.saturating_sub(age) < SOON)
}

/// Whether somebody may sit before it, who starts a server again by hand.
const fn is_shell_of_terminal(stat: &Stat) -> bool {
    stat.session == stat.pid && stat.tty_nr != 0
}

const FIRST: i32 = 1;
const ROOT: u32 = 0;

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader},
        process::{Child, ChildStdout, Command, Stdio},
    };

    use super::*;

    /// A shell that runs this, and says of each process that it starts which one it is.
    struct Shell {
        child: Child,
        said: BufReader<ChildStdout>,
    }

    impl Shell {
        fn new(script: &str) -> Self {
            let mut child = Command::new("sh")
                .args(["-c", script])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let said = BufReader::new(child.stdout.take().unwrap());
            Self { child, said }
        }

        fn pid(&self) -> Pid {
            Pid::new(self.child.id().cast_signed()).unwrap()
        }

        /// The next one, as soon as its program runs.
        fn next(&mut self) -> Pid {
            let mut line = String::new();
            self.said.read_line(&mut line).unwrap();
            let pid = Pid::new(line.trim().parse().unwrap()).unwrap();
            while command_line(pid).is_ok_and(|it| it.first() != Some(&"sleep".into())) {
                std::thread::yield_now();
            }
            pid
        }
    }

    impl Drop for Shell {
        fn drop(&mut self) {
            drop(self.child.stdin.take());
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
    }

    fn end(pid: Pid) {
        let pid = rustix::process::Pid::from_raw(pid.get()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }

    const LOOP: &str = "while :; do sleep 71 & echo $!; wait $!; done";

    #[test]
    fn who_starts_the_same_again_is_known_by_that() {
        let mut shell = Shell::new(LOOP);
        let server = shell.next();
        let above = Starter::above(server, None, |pid| pid != Pid::ours()).unwrap();
        let [starter] = &above[..] else { panic!("{above:?}") };
        assert_eq!(starter.pid(), shell.pid());
        assert_eq!(starter.started_again(&HashSet::from([server])).unwrap(), []);
        end(server);
        let again = shell.next();
        assert_eq!(starter.started_again(&HashSet::from([server])).unwrap(), [again]);
        assert!(is_of_same_start(again, &[again]));
        end(again);
    }

    #[test]
    fn who_has_other_children_too_has_not_started_the_server_alone() {
        let mut shell = Shell::new(&format!("sleep 72 & echo $!; {LOOP}"));
        let other = shell.next();
        let server = shell.next();
        let above = Starter::above(server, None, |pid| pid != Pid::ours()).unwrap();
        end(server);
        let again = shell.next();
        assert_eq!(above[0].started_again(&HashSet::new()).unwrap(), []);
        end(other);
        end(again);
    }

    #[test]
    fn who_gives_each_child_a_session_is_one_only_as_the_parent() {
        let outer = |inner: &str| format!("while :; do setsid {inner} & wait $!; done");
        let mut shell = Shell::new(&outer("sh -c 'echo $$; exec sleep 73'"));
        let server = shell.next();
        let above = Starter::above(server, None, |pid| pid != Pid::ours()).unwrap();
        assert_eq!(above.iter().map(Starter::pid).collect::<Vec<_>>(), [shell.pid()]);
        end(server);
        end(shell.next());
        let mut shell = Shell::new(&outer("sh -c 'sleep 74 & echo $!; wait'"));
        let server = shell.next();
        let above = Starter::above(server, None, |pid| pid != Pid::ours()).unwrap();
        assert_eq!(above.len(), 1, "{above:?}");
        assert_ne!(above[0].pid(), shell.pid());
        end(server);
        end(shell.next());
    }

    #[test]
    fn whom_somebody_excludes_is_none() {
        let mut shell = Shell::new(LOOP);
        let server = shell.next();
        assert_eq!(Starter::above(server, None, |_| false).unwrap(), []);
        end(server);
        end(shell.next());
    }
}
