//! Who started a server, and may start it again when it ends.
//!
//! A supervisor that somebody wrote (a loop in a shell, a parent in Python) looks like a script that only waits for the server,
//! until it starts the server a second time. So those above a server are remembered, and looked at again when it has ended.

mod children;

use std::{collections::HashSet, time::Duration};

use procfs::process::Stat;
use serde::{Deserialize, Serialize};

pub use self::children::Seen;
use self::children::{children_beside, is_sleep, is_written_down};
use super::{
    init::is_first_inside,
    kin::{ancestors, told_children, user_of},
    os_text::OsText,
    process::{Pid, Process, ProcessError, ProcessIdentity, command_line, stat, tasks},
    process_table::ProcessTable,
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
    /// The command lines of those of its children that read what the server writes, as `tee` does: they end with it.
    readers: Vec<Vec<OsText>>,
    /// Whether it has other children, or threads.
    is_busy: bool,
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
            let (readers, has_others) = children_beside(pid, child)?;
            let is_busy = has_others || has_threads(pid);
            let (process, started) = (process.identity(), child_process.identity());
            found.push(Self { process, child: started, command, server, readers, is_busy });
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

    /// Its children, as far as they tell what they are.
    ///
    /// # Errors
    ///
    /// When it or the machine's processes cannot be looked at.
    pub fn look(&self, known: &HashSet<Pid>) -> Result<Seen, ProcessError> {
        if !self.lives()? {
            return Ok(Seen::default());
        }
        let children = told_children(self.pid())?;
        let (servers, others): (Vec<_>, Vec<_>) =
            children.into_iter().partition(|(_, command)| self.is_child(command));
        let servers: Vec<_> = servers.into_iter().map(|(pid, _)| pid).collect();
        let is_new = |pid: &Pid| {
            let start = Process::open(*pid).map(|process| process.start_time());
            !known.contains(pid)
                && *pid != self.child.pid
                && start.is_ok_and(|start| start >= self.child.start_time)
        };
        let mut again: Vec<_> = servers.iter().copied().filter(is_new).collect();
        if !again.is_empty() && !self.is_server_among(&again)? {
            again.clear();
        }
        let reads = |reader| others.iter().any(|(_, command)| command == reader);
        let is_whole = self.readers.iter().all(reads);
        let is_work =
            |command: &[OsText]| !is_sleep(command) && !self.readers.iter().any(|it| it == command);
        let others = others.iter().filter(|(_, command)| is_work(command)).map(|(pid, _)| *pid);
        Ok(Seen { again, others: others.collect(), servers, is_whole })
    }

    /// It starts more than this server.
    pub const fn note_busy(&mut self) {
        self.is_busy = true;
    }

    /// Whether it is known to have, or to have had, other children.
    pub const fn is_busy(&self) -> bool {
        self.is_busy
    }

    /// A server may have overwritten its command line since: by a title that ends with it, as nginx does.
    fn is_child(&self, command: &[OsText]) -> bool {
        let joined = |words: &[OsText]| {
            let words = words.iter().map(|it| it.as_os_str().to_string_lossy());
            words.collect::<Vec<_>>().join(" ").trim_end().to_owned()
        };
        *command == self.command || {
            let (title, command) = (joined(&self.command), joined(command));
            self.command.first().is_some_and(|it| it.as_os_str().to_string_lossy().contains(": "))
                && !command.is_empty()
                && title.ends_with(&format!(" {command}"))
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
        Ok(self.command == self.server
            || ProcessTable::read()?.with_descendants(children).into_iter().any(is_server))
    }
}

/// Whether a process does several things at once: what, nobody can tell.
pub fn has_threads(pid: Pid) -> bool {
    tasks(pid) > 1
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
            while command_line(pid).is_ok_and(|it| it.first() != Some(&"tail".into())) {
                std::thread::yield_now();
            }
            pid
        }
    }

    impl Drop for Shell {
        fn drop(&mut self) {
            // It would start the next one while we look.
            signal(self.pid(), rustix::process::Signal::STOP);
            let all = ProcessTable::read().unwrap().with_descendants(&[self.pid()]);
            all.into_iter().for_each(|pid| signal(pid, rustix::process::Signal::KILL));
            self.child.wait().unwrap();
        }
    }

    fn end(pid: Pid) {
        signal(pid, rustix::process::Signal::KILL);
    }

    /// One that has ended meanwhile needs none.
    fn signal(pid: Pid, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(pid.get()).unwrap();
        let _gone = rustix::process::kill_process(pid, signal);
    }

    const LOOP: &str = "while :; do tail -n 71 -f /dev/null & echo $!; wait $!; done";

    #[test]
    fn who_starts_the_same_again_is_known_by_that() {
        let mut shell = Shell::new(LOOP);
        let server = shell.next();
        let above = Starter::above(server, None, |pid| pid != Pid::ours()).unwrap();
        let [starter] = &above[..] else { panic!("{above:?}") };
        assert_eq!(starter.pid(), shell.pid());
        assert!(starter.look(&HashSet::new()).unwrap().again.is_empty());
        end(server);
        let again = shell.next();
        assert!(starter.is_child_gone().unwrap());
        assert!(starter.look(&HashSet::from([again])).unwrap().again.is_empty());
        let seen = starter.look(&HashSet::new()).unwrap();
        assert_eq!((seen.again, seen.others), (vec![again], Vec::new()));
        assert!(is_of_same_start(again, &[again]));
        end(again);
    }

    #[test]
    fn who_has_other_children_too_has_not_started_the_server_alone() {
        let mut shell = Shell::new(&format!("tail -n 72 -f /dev/null & echo $!; {LOOP}"));
        let other = shell.next();
        let server = shell.next();
        let above = Starter::above(server, None, |pid| pid != Pid::ours()).unwrap();
        end(server);
        let again = shell.next();
        assert!(above[0].is_busy());
        let seen = above[0].look(&HashSet::new()).unwrap();
        assert_eq!((seen.again, seen.others), (vec![again], vec![other]));
        assert_ne!(server, again);
        end(other);
        end(again);
    }

    #[test]
    fn who_reads_what_the_server_writes_is_no_other_server() {
        let piped = "tail -n 75 -f /dev/null | tail -n 76";
        let mut shell = Shell::new(&format!("while :; do {piped} & echo $!; wait; done"));
        let server_of = |shell: &Shell| loop {
            let children = told_children(shell.pid()).unwrap();
            let is_server = |words: &[OsText]| words.get(2) == Some(&"75".into());
            if let Some((pid, _)) = children.iter().find(|(_, words)| is_server(words)) {
                return *pid;
            }
        };
        shell.next();
        let server = server_of(&shell);
        let above = Starter::above(server, None, |pid| pid != Pid::ours()).unwrap();
        assert!(!above[0].is_busy());
        end(server);
        shell.next();
        let again = server_of(&shell);
        let seen = above[0].look(&HashSet::new()).unwrap();
        assert_eq!((seen.again, seen.others), (vec![again], Vec::new()));
        end(shell.pid());
        end(again);
    }

    #[test]
    fn a_title_that_ends_with_the_command_line_is_the_same() {
        let words = |text: &str| text.split('|').map(OsText::from).collect::<Vec<_>>();
        let shell = Shell::new(LOOP);
        let process = Process::open(shell.pid()).unwrap().identity();
        let titled = |title: &str| Starter {
            process,
            child: process,
            command: words(title),
            server: words(title),
            readers: Vec::new(),
            is_busy: false,
        };
        let nginx = titled("nginx: master process nginx -c /srv/v1.conf");
        assert!(nginx.is_child(&words("nginx|-c|/srv/v1.conf")));
        assert!(!nginx.is_child(&words("nginx|-c|/srv/v2.conf")));
        assert!(!titled("server -c a").is_child(&words("-c|a")));
    }

    #[test]
    fn who_waits_for_somebody_that_starts_the_server_again_has_started_nothing() {
        let mut shell = Shell::new(&format!("sh -c '{LOOP}'; true"));
        let server = shell.next();
        let above = Starter::above(server, None, |pid| pid != Pid::ours()).unwrap();
        let [inner, outer] = &above[..] else { panic!("{above:?}") };
        assert_eq!(outer.pid(), shell.pid());
        end(server);
        let again = shell.next();
        assert_eq!(inner.look(&HashSet::new()).unwrap().again, [again]);
        assert!(outer.look(&HashSet::new()).unwrap().again.is_empty());
        end(inner.pid());
        end(again);
    }

    #[test]
    fn who_gives_each_child_a_session_is_one_only_as_the_parent() {
        let outer = |inner: &str| format!("while :; do setsid {inner} & wait $!; done");
        let mut shell = Shell::new(&outer("sh -c 'echo $$; exec tail -n 73 -f /dev/null'"));
        let server = shell.next();
        let above = Starter::above(server, None, |pid| pid != Pid::ours()).unwrap();
        assert_eq!(above.iter().map(Starter::pid).collect::<Vec<_>>(), [shell.pid()]);
        end(server);
        end(shell.next());
        let mut shell = Shell::new(&outer("sh -c 'tail -n 74 -f /dev/null & echo $!; wait'"));
        let server = shell.next();
        let above = Starter::above(server, None, |pid| pid != Pid::ours()).unwrap();
        assert_eq!(above.len(), 1, "{above:?}");
        assert_ne!(above[0].pid(), shell.pid());
        end(server);
        end(shell.next());
    }

    #[test]
    fn more_of_the_same_are_no_other_work() {
        let mut shell = Shell::new(&format!("tail -n 71 -f /dev/null & echo $!; {LOOP}"));
        let (one, other) = (shell.next(), shell.next());
        let above = Starter::above(one, None, |pid| pid != Pid::ours()).unwrap();
        assert!(!above[0].is_busy());
        assert_eq!(above[0].look(&HashSet::new()).unwrap().again, [other]);
        end(one);
        end(other);
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
