//! Who starts a server again when it ends: told by such a one to end, it is there again a moment later, in the old version.

use std::{os::unix::ffi::OsStrExt as _, path::Path};

use super::{
    bounded,
    kin::ancestors,
    os_text::OsText,
    patience::{self, Whose},
    process::{Pid, ProcessError, stat, words},
};

/// A process that starts others, and starts them again when they end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Supervisor {
    /// Its number.
    pub pid: Pid,
    /// Which program it is.
    pub kind: &'static Kind,
}

/// A program whose work that is.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// What people call it.
    pub name: &'static str,
    /// How it is told to let a server end.
    pub way: &'static str,
    /// How it is known.
    sign: Sign,
    /// Where it writes down whether it would start its server again.
    status: Status,
}

/// How a supervisor is known.
#[derive(Debug, PartialEq, Eq)]
enum Sign {
    /// By the name of the program, or of the script that is one of the first words of its command line.
    Program(&'static str),
    /// By the title that it gives itself.
    Title(&'static str),
}

/// Whether a supervisor's intention can be read.
#[derive(Debug, PartialEq, Eq)]
enum Status {
    /// In the file `supervise/status` of its directory: the 18th byte is `u` as long as the server is wanted up.
    Daemontools,
    /// Not from outside.
    Hidden,
}

impl Supervisor {
    /// The one that started this process. A shell may be in between, but no session: whoever logged in or was started by
    /// hand is nobody's charge.
    ///
    /// # Errors
    ///
    /// When the process is gone.
    pub fn of(pid: Pid) -> Result<Option<Self>, ProcessError> {
        let session = stat(pid)?.session;
        for ancestor in ancestors(pid)? {
            if let Some(kind) = Kind::of(ancestor) {
                return Ok(Some(Self { pid: ancestor, kind }));
            }
            if stat(ancestor).map_or(true, |stat| stat.session != session) {
                break;
            }
        }
        Ok(None)
    }

    /// Whether it starts its server again; in doubt it does.
    pub fn restarts(&self) -> bool {
        match self.kind.status {
            Status::Hidden => true,
            Status::Daemontools => {
                let path = format!("/proc/{}/cwd/supervise/status", self.pid);
                let read = move || bounded::read_regular_beginning(Path::new(&path), ENOUGH);
                let status = patience::with(Whose::Process(self.pid), read);
                status.flatten().map_or(true, |status| wants_up(&status))
            }
        }
    }
}

impl Kind {
    /// Whether it says to others if it would start its server again.
    pub fn says_whether(&self) -> bool {
        self.status != Status::Hidden
    }

    /// Which kind of supervisor a process is, if any.
    pub fn of(pid: Pid) -> Option<&'static Self> {
        let command = patience::read_beginning(pid, "cmdline", ENOUGH).ok()?;
        Self::by_words(&words(&command))
    }

    /// Which one has this command line.
    pub(super) fn by_words(command: &[OsText]) -> Option<&'static Self> {
        let mut words = command.iter().map(|word| word.as_bytes());
        let first = words.next()?;
        // `python3 /usr/bin/supervisord`, `python3 -m supervisor.supervisord`, `perl /usr/bin/start_server`
        let early: Vec<_> = std::iter::once(first).chain(words.take(2)).map(base_name).collect();
        KINDS.iter().find(|kind| match kind.sign {
            Sign::Program(name) => early.contains(&name.as_bytes()),
            Sign::Title(title) => first.starts_with(title.as_bytes()),
        })
    }
}

fn base_name(word: &[u8]) -> &[u8] {
    let path = Path::new(std::ffi::OsStr::from_bytes(word));
    let name = path.file_name().map_or(word, |name| name.as_bytes());
    name.strip_prefix(b"supervisor.").unwrap_or(name)
}

/// `svstatus_get` of runit, `readstatus` of daemontools.
pub(super) fn wants_up(status: &[u8]) -> bool {
    const WANT: usize = 17;
    status.get(WANT).is_none_or(|want| *want == b'u')
}

/// What people write is short; what a process says of itself may be endless.
const ENOUGH: u64 = 4096;

/// All that are known. systemd is not among them: it is asked in other ways.
static KINDS: [Kind; 9] = [
    Kind {
        name: "runit",
        way: "`sv once SERVICE`",
        sign: Sign::Program("runsv"),
        status: Status::Daemontools,
    },
    Kind {
        name: "daemontools",
        way: "`svc -o SERVICE`",
        sign: Sign::Program("supervise"),
        status: Status::Daemontools,
    },
    Kind {
        name: "s6",
        way: "`s6-svc -O SERVICE`",
        sign: Sign::Program("s6-supervise"),
        status: Status::Hidden,
    },
    Kind {
        name: "supervisord",
        way: "`autorestart=false` in its program's section",
        sign: Sign::Program("supervisord"),
        status: Status::Hidden,
    },
    Kind {
        name: "circus",
        way: "`circusctl set WATCHER respawn false`",
        sign: Sign::Program("circusd"),
        status: Status::Hidden,
    },
    Kind {
        name: "perp",
        way: "`perpctl o SERVICE`",
        sign: Sign::Program("perpd"),
        status: Status::Hidden,
    },
    Kind {
        name: "dinit",
        way: "`restart = no` in its service description",
        sign: Sign::Program("dinit"),
        status: Status::Hidden,
    },
    Kind {
        name: "Server::Starter",
        way: "`start_server --restart` in place of an upgrade",
        sign: Sign::Program("start_server"),
        status: Status::Hidden,
    },
    Kind {
        name: "pm2",
        way: "`autorestart: false` in its application's entry",
        sign: Sign::Title("PM2 v"),
        status: Status::Hidden,
    },
];

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn name(command: &str) -> Option<&'static str> {
        Kind::by_words(&words(command.replace(' ', "\0").as_bytes())).map(|kind| kind.name)
    }

    #[test]
    fn supervisors_are_known_by_program_script_module_and_title() {
        assert_eq!(name("runsv web"), Some("runit"));
        assert_eq!(name("/usr/bin/python3 /usr/bin/supervisord -n"), Some("supervisord"));
        assert_eq!(name("python3 -m supervisor.supervisord"), Some("supervisord"));
        assert_eq!(name("perl /usr/bin/start_server --port=80"), Some("Server::Starter"));
        let god = b"PM2 v5.4.2: God Daemon (/root/.pm2)\0\0";
        assert_eq!(Kind::by_words(&words(god)).map(|kind| kind.name), Some("pm2"));
    }

    #[test]
    fn a_server_is_no_supervisor_for_its_arguments() {
        for command in ["", "nginx", "python3 server.py --under supervisord", "/srv/runsv-stats"] {
            assert_eq!(name(command), None, "{command}");
        }
    }

    #[test]
    fn who_calls_itself_a_supervisor_makes_nobody_wait_for_what_it_writes_down() {
        let directory = tempfile::tempdir().unwrap();
        let status = directory.path().join("supervise/status");
        std::fs::create_dir(status.parent().unwrap()).unwrap();
        assert!(Command::new("mkfifo").arg(&status).status().unwrap().success());
        let mut child = Command::new("bash")
            .args(["-c", "exec -a runsv cat"])
            .current_dir(&directory)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = Pid::new(child.id().cast_signed()).unwrap();
        let kind = loop {
            match Kind::of(pid) {
                Some(kind) => break kind,
                None => std::thread::yield_now(),
            }
        };
        let (answer, answered) = std::sync::mpsc::channel();
        std::thread::spawn(move || answer.send(Supervisor { pid, kind }.restarts()));
        let restarts = answered.recv_timeout(std::time::Duration::from_secs(20));
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!(restarts, Ok(true), "in doubt");
    }

    #[test]
    fn one_that_was_told_to_let_its_server_end_does_not_start_it_again() {
        let status = |want| [&[0; 17][..], &[want, 0, 1]].concat();
        assert!(wants_up(&status(b'u')));
        assert!(!wants_up(&status(b'd')));
        assert!(!wants_up(&status(0)), "daemontools, told once");
        assert!(wants_up(b""), "in doubt");
    }
}
