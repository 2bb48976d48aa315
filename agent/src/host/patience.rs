//! Reads files of processes that may keep whoever reads them waiting for ever.
//!
//! # Kernel
//!
//! What some files below `/proc/PID` say is read under a lock that the process itself holds while it waits for something that
//! it has made: a page of a buffer that a file system of its own has to bring, say, while `epoll_wait` fills it
//! (`ep_send_events`, and `ep_show_fdinfo` takes the same mutex); a file that is mapped (`mmap_lock`: `cmdline`, `environ`), or
//! closed as it executes a program (`exec_update_lock`: `environ`, `personality`, `syscall`). Nobody can interrupt whoever waits
//! for a mutex. So the read is made on a thread of its own, which stays behind if it has to: as long as that, nothing is asked
//! of that process again. `stat`, `status`, `limits`, `cgroup` and the links below `/proc/PID` take no such lock.

use std::{
    fmt::Display,
    io,
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        mpsc::{
            Receiver, RecvTimeoutError, Sender, SyncSender, TryRecvError, channel, sync_channel,
        },
    },
    thread,
    time::Duration,
};

use super::{bounded, process::Pid};

/// A whole file below `/proc/PID`.
///
/// # Errors
///
/// As [`bounded::read`], and [`io::ErrorKind::TimedOut`] if it keeps us waiting.
pub(super) fn read(pid: Pid, file: impl Display, most: u64) -> io::Result<Vec<u8>> {
    ask(pid, &file, most, bounded::read)
}

/// The first `most` bytes of a file below `/proc/PID`.
///
/// # Errors
///
/// As [`bounded::read_beginning`], and [`io::ErrorKind::TimedOut`] if it keeps us waiting.
pub(super) fn read_beginning(pid: Pid, file: impl Display, most: u64) -> io::Result<Vec<u8>> {
    ask(pid, &file, most, bounded::read_beginning)
}

type Read = fn(&std::path::Path, u64) -> io::Result<Vec<u8>>;

fn ask(pid: Pid, file: &dyn Display, most: u64, read: Read) -> io::Result<Vec<u8>> {
    let (answer, answered) = sync_channel(1);
    let question = Question { path: format!("/proc/{pid}/{file}").into(), most, read, answer };
    READERS.lock().unwrap_or_else(PoisonError::into_inner).ask(pid, question, answered)
}

struct Question {
    path: PathBuf,
    most: u64,
    read: Read,
    answer: SyncSender<io::Result<Vec<u8>>>,
}

/// The thread that reads, and those that were left behind.
struct Readers {
    reader: Option<Sender<Question>>,
    waiting: Vec<(Pid, Receiver<io::Result<Vec<u8>>>)>,
}

static READERS: Mutex<Readers> = Mutex::new(Readers { reader: None, waiting: Vec::new() });

impl Readers {
    fn ask(
        &mut self,
        pid: Pid,
        question: Question,
        answered: Receiver<io::Result<Vec<u8>>>,
    ) -> io::Result<Vec<u8>> {
        self.waiting.retain(|(_, answer)| matches!(answer.try_recv(), Err(TryRecvError::Empty)));
        if self.waiting.len() >= MOST_WAITING || self.waiting.iter().any(|(it, _)| *it == pid) {
            return Err(kept_waiting());
        }
        // The more of them there are, the less each one gets: all together they cost a few seconds, however many somebody makes.
        let patience = PATIENCE / u32::try_from(self.waiting.len() + 1).unwrap_or(u32::MAX);
        self.reader()?.send(question).map_err(io::Error::other)?;
        match answered.recv_timeout(patience) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Timeout) => {
                // It ends when it has its answer, because nobody is left to ask it anything.
                self.reader = None;
                self.waiting.push((pid, answered));
                Err(kept_waiting())
            }
            Err(RecvTimeoutError::Disconnected) => {
                self.reader = None;
                Err(io::Error::other("the thread that reads has ended"))
            }
        }
    }

    fn reader(&mut self) -> io::Result<&Sender<Question>> {
        if self.reader.is_none() {
            let (reader, questions) = channel::<Question>();
            thread::Builder::new().name("reads-proc".to_owned()).stack_size(STACK).spawn(
                move || {
                    for Question { path, most, read, answer } in questions {
                        // Whoever has asked may have gone on without it.
                        let _: Result<(), _> = answer.send(read(&path, most));
                    }
                },
            )?;
            self.reader = Some(reader);
        }
        self.reader.as_ref().ok_or_else(|| io::Error::other("nobody reads"))
    }
}

fn kept_waiting() -> io::Error {
    let message = "the process keeps whoever asks for it waiting";
    io::Error::new(io::ErrorKind::TimedOut, message)
}

/// A read takes microseconds; of a process that is busy with its memory it may take longer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Threads that are left behind; each has a stack of a few pages.
const MOST_WAITING: usize = 1000;
const STACK: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use std::{
        collections::HashSet,
        io::{BufRead as _, BufReader},
        process::{Child, Command, Stdio},
        time::Instant,
    };

    use super::*;
    use crate::host::{accepting::accepts, sock_diag::SocketInode};

    /// Waits in `epoll_wait` for a page that nobody brings, and says which descriptor the epoll set is.
    const KEEPS_WAITING: &str = r#"
import ctypes, fcntl, os, select, struct, sys, threading
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
fault = libc.syscall(323, os.O_CLOEXEC)
if fault < 0:
    sys.exit("userfaultfd: " + os.strerror(ctypes.get_errno()))
fcntl.ioctl(fault, 0xc018aa3f, bytearray(struct.pack("QQQ", 0xaa, 0, 0)))
page = libc.mmap(None, ctypes.c_size_t(4096), 3, 0x22, -1, ctypes.c_long(0))
fcntl.ioctl(fault, 0xc020aa00, bytearray(struct.pack("QQQQ", page, 4096, 1, 0)))
reader, writer = os.pipe()
os.write(writer, b"x")
watch = select.epoll()
watch.register(reader, select.EPOLLIN)
threading.Thread(target=lambda: libc.epoll_wait(watch.fileno(), ctypes.c_void_p(page), 1, -1)).start()
os.read(fault, 32)
print(watch.fileno(), flush=True)
sys.stdin.read()
"#;

    struct Server(Child);

    impl Drop for Server {
        fn drop(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    /// Nothing where there is no `userfaultfd` for the likes of us.
    fn one_that_keeps_us_waiting() -> Option<(Server, Pid)> {
        let mut command = Command::new("python3");
        command.args(["-c", KEEPS_WAITING]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut server = Server(command.spawn().ok()?);
        let mut line = String::new();
        BufReader::new(server.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let pid = Pid::new(server.0.id().cast_signed()).unwrap();
        (!line.is_empty()).then_some((server, pid))
    }

    #[test]
    fn a_process_that_keeps_us_waiting_is_left_and_not_asked_again_and_others_are() {
        let Some((server, pid)) = one_that_keeps_us_waiting() else {
            return eprintln!("skipped: nobody may make a process wait for a page here");
        };
        let (answer, answered) = channel();
        thread::spawn(move || {
            answer.send(accepts(pid, &HashSet::from([SocketInode(1)]))).unwrap();
        });
        assert!(!answered.recv_timeout(Duration::from_secs(20)).expect("it waits for ever"));
        let began = Instant::now();
        let error = read(pid, "cmdline", 4096).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() < PATIENCE / 2, "it is not asked again");
        read(Pid::ours(), "cmdline", 1 << 20).unwrap();
        drop(server);
        let is_forgotten =
            || read(pid, "cmdline", 4096).unwrap_err().kind() != io::ErrorKind::TimedOut;
        while !is_forgotten() {
            thread::yield_now();
        }
    }
}
