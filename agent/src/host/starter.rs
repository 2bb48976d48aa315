//! Who started a server, and may start it again when it ends.
//!
//! A supervisor that somebody wrote (a loop in a shell, a parent in Python) looks like a script that only waits for the server,
//! until it starts the server a second time. So those above a server are remembered, and looked at again when it has ended.

use std::{collections::HashSet, time::Duration};

use procfs::process::Stat;
use serde::{Deserialize, Serialize};

use super::{
    init::is_first_inside,
    kin::{ancestors, told_children, user_of, with_descendants},
    os_text::OsText,
    process::{Pid, Process, ProcessError, ProcessIdentity, command_line, stat},
    supervisor::Kind,
};

/// A process above a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Starter {
    process: ProcessIdentity,
    /// Its child that is the server's first process, or is above that.
    child: ProcessIdentity,
    /// The command line of that child.
    command: Vec<OsText>,
    /// That of the server's first process.
    server: Vec<OsText>,
    /// Its other children, and their command lines: a pipe to a log, or something that has nothing to do with the server.
    beside: Vec<(ProcessIdentity, Vec<OsText>)>,
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
            let is_first = is_first_inside(pid).unwrap_or(true);
            if is_first || !is_user || Kind::of(pid).is_some() || !may_be(pid) {
                break;
            }
            let (Ok(process), Ok(command)) = (Process::open(pid), command_line(child)) else {
                break;
            };
            let child_process = Process::open(child)?;
            if !is_written_down(&command) {
                break;
            }
            let (Ok(above), Ok(below)) = (stat(pid), stat(child)) else { break };
            let begins_session = above.session != below.session;
            if is_shell_of_terminal(&above)
                || begins_session && (child != root || below.tty_nr != 0)
            {
                break;
            }
            let server = server.clone();
            let beside = children_beside(pid, child)?;
            let (process, started) = (process.identity(), child_process.identity());
            found.push(Self { process, child: started, command, server, beside });
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

    /// Whether it has started the server a second time, beside what is known. Only what was born after the server tells.
    ///
    /// # Errors
    ///
    /// When it or the machine's processes cannot be looked at.
    pub fn look(&self, known: &HashSet<Pid>) -> Result<Again, ProcessError> {
        if !self.lives()? {
            return Ok(Again::No);
        }
        let children = told_children(self.pid())?;
        let (servers, others): (Vec<_>, Vec<_>) =
            children.into_iter().partition(|(_, command)| *command == self.command);
        let is_new = |pid: &Pid| {
            let start = Process::open(*pid).map(|process| process.start_time());
            !known.contains(pid)
                && *pid != self.child.pid
                && start.is_ok_and(|start| start >= self.child.start_time)
        };
        let new: Vec<_> = servers.into_iter().map(|(pid, _)| pid).filter(is_new).collect();
        if new.is_empty() || !self.is_server_among(&new)? {
            return Ok(Again::No);
        }
        let is_known = |command: &Vec<OsText>| self.has_ended_beside(command);
        match others.iter().all(|(_, command)| is_known(command)) {
            true => Ok(Again::Alone(new)),
            false => Ok(Again::BesideOthers),
        }
    }

    /// Whether the child that it had started has ended.
    ///
    /// # Errors
    ///
    /// When that cannot be found out.
    pub fn is_child_gone(&self) -> Result<bool, ProcessError> {
        Process::lives(self.child).map(|lives| !lives)
    }

    fn is_server_among(&self, children: &[Pid]) -> Result<bool, ProcessError> {
        let is_server = |pid: Pid| command_line(pid).is_ok_and(|it| it == self.server);
        Ok(self.command == self.server || with_descendants(children)?.into_iter().any(is_server))
    }

    /// Whether it had such a child beside the server, which has ended too: a pipe to a log.
    fn has_ended_beside(&self, command: &[OsText]) -> bool {
        let mut before = self.beside.iter().filter(|(_, it)| *it == command).peekable();
        before.peek().is_some()
            && before.all(|(process, _)| Process::lives(*process).is_ok_and(|lives| !lives))
    }
}

/// Whether somebody has started a server a second time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Again {
    /// Not that anybody knows.
    No,
    /// It did, and has no children but these and such as ended and were started again with the server.
    Alone(Vec<Pid>),
    /// It did, and has other children, which would end with it.
    BesideOthers,
}

fn children_beside(
    parent: Pid,
    child: Pid,
) -> Result<Vec<(ProcessIdentity, Vec<OsText>)>, ProcessError> {
    const MOST: usize = 8;
    let mut children = told_children(parent)?;
    children.retain(|(pid, command)| *pid != child && is_written_down(command));
    let opened = children
        .into_iter()
        .filter_map(|(pid, command)| Some((Process::open(pid).ok()?.identity(), command)));
    Ok(opened.take(MOST).collect())
}

/// What no server has as its command line is not believed, nor remembered.
fn is_written_down(command: &[OsText]) -> bool {
    const MOST: usize = 32 << 10;
    command.iter().map(|it| it.as_bytes().len()).sum::<usize>() <= MOST
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
        assert_eq!(starter.look(&HashSet::new()).unwrap(), Again::No);
        end(server);
        let again = shell.next();
        assert!(starter.is_child_gone().unwrap());
        assert_eq!(starter.look(&HashSet::from([again])).unwrap(), Again::No);
        assert_eq!(starter.look(&HashSet::new()).unwrap(), Again::Alone(vec![again]));
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
        assert_eq!(above[0].look(&HashSet::new()).unwrap(), Again::BesideOthers);
        assert_ne!(server, again);
        end(other);
        end(again);
    }

    #[test]
    fn what_ends_and_starts_together_with_the_server_is_no_other_server() {
        let both = "while :; do sleep 75 & server=$!; sleep 76 & echo $server; echo $!; wait; done";
        let mut shell = Shell::new(both);
        let (server, pipe) = (shell.next(), shell.next());
        let above = Starter::above(server, None, |pid| pid != Pid::ours()).unwrap();
        end(server);
        end(pipe);
        let (again, pipe) = (shell.next(), shell.next());
        assert_eq!(above[0].look(&HashSet::new()).unwrap(), Again::Alone(vec![again]));
        end(again);
        end(pipe);
        end(shell.next());
        end(shell.next());
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
