//! Does what a process may keep whoever does it waiting for, perhaps for ever.
//!
//! # Kernel
//!
//! What some files below `/proc/PID` say is read under a lock that the process itself holds while it waits for something that
//! it has made: a page of a buffer that a file system of its own has to bring, say, while `epoll_wait` fills it
//! (`ep_send_events`, and `ep_show_fdinfo` takes the same mutex); a file that is mapped (`mmap_lock`: `cmdline`, `environ`), or
//! closed as it executes a program (`exec_update_lock`: `environ`, `personality`, `syscall`). Nobody can interrupt whoever waits
//! for a mutex. And its directories may be of a file system that it serves itself (`request_wait_answer` of FUSE), or of one
//! whose server is away.
//!
//! So the work is done on a thread of its own, which stays behind if it has to: as long as that, nothing is done any more that
//! the same process may keep waiting. A thread that cannot be interrupted outlives its process, and with it what that has open:
//! so it has nothing of ours open, and whoever comes next gets our lock and our socket (`exit_files`). `stat`, `status`, `limits`, `cgroup` and the links below `/proc/PID` take no such lock.

use std::{
    cell::{Cell, RefCell},
    fmt::Display,
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        mpsc::{RecvTimeoutError, Sender, channel, sync_channel},
    },
    thread,
    time::Duration,
};

use super::{bounded, process::Pid};
use crate::sys::descriptors;

/// Who may keep us waiting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// This process, by what it says of itself and where it keeps its files.
    Process(Pid),
    /// The service of this number, whose processes may all be gone, by where its server kept its files.
    Service(u32),
    /// A directory that a server of this service is to run in.
    Directory(u32, PathBuf),
    /// The service of this number, by the files that its servers write their output to: who changes the room of a file has its lock
    /// as long as that takes (`inode_lock`), and whoever else changes it waits.
    Output(u32),
}

/// A whole file below `/proc/PID`.
///
/// # Errors
///
/// As [`bounded::read`], and [`io::ErrorKind::TimedOut`] if it keeps us waiting.
pub(super) fn read(pid: Pid, file: impl Display, most: u64) -> io::Result<Vec<u8>> {
    let path = path(pid, file);
    with(Whose::Process(pid), move || bounded::read(&path, most))?
}

/// The first `most` bytes of a file below `/proc/PID`.
///
/// # Errors
///
/// As [`bounded::read_beginning`], and [`io::ErrorKind::TimedOut`] if it keeps us waiting.
pub(super) fn read_beginning(pid: Pid, file: impl Display, most: u64) -> io::Result<Vec<u8>> {
    let path = path(pid, file);
    with(Whose::Process(pid), move || bounded::read_beginning(&path, most))?
}

fn path(pid: Pid, file: impl Display) -> PathBuf {
    format!("/proc/{pid}/{file}").into()
}

/// Does something, and waits for it as long as we wait for anybody. Whatever was begun is still done, however late.
///
/// # Errors
///
/// [`io::ErrorKind::TimedOut`] if that was not long enough, or something else of the same process is still waited for.
pub fn with<T: Send + 'static>(
    whose: Whose,
    act: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    // A part of what is done so already.
    if is_worker() {
        return Ok(act());
    }
    let patience = patience_for(&whose)?;
    WORKER.with_borrow_mut(|worker| worker.with(whose, patience, act))
}

/// Does something, and waits for nothing.
///
/// # Errors
///
/// [`io::ErrorKind::TimedOut`] if something else of the same is under way, and when there can be no thread.
pub fn aside(whose: Whose, act: impl FnOnce() + Send + 'static) -> io::Result<()> {
    patience_for(&whose)?;
    let unfinished = Arc::new(());
    waiting().push((whose, Arc::downgrade(&unfinished)));
    let work = move || {
        act();
        drop(unfinished);
    };
    // The thread ends when it has done this.
    Worker(None).thread()?.send(Box::new(work)).map_err(|_work| gone())
}

/// Whether this is such a thread, which has nothing open that others have.
pub(super) fn is_worker() -> bool {
    IS_WORKER.get()
}

type Work = Box<dyn FnOnce() + Send>;

/// The thread that works for another one. Each has its own: nobody waits for what others ask.
struct Worker(Option<Sender<Work>>);

/// What threads that were left behind still wait for.
static WAITING: Mutex<Vec<(Whose, Weak<()>)>> = Mutex::new(Vec::new());

thread_local! {
    static IS_WORKER: Cell<bool> = const { Cell::new(false) };
    static WORKER: RefCell<Worker> = const { RefCell::new(Worker(None)) };
}

fn waiting() -> MutexGuard<'static, Vec<(Whose, Weak<()>)>> {
    WAITING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long this one is waited for.
fn patience_for(whose: &Whose) -> io::Result<Duration> {
    let mut waiting = waiting();
    waiting.retain(|(_, unfinished)| unfinished.strong_count() > 0);
    if waiting.len() >= MOST_WAITING || waiting.iter().any(|(it, _)| it == whose) {
        return Err(kept_waiting());
    }
    // The more of them there are, the less each one gets: all together they cost a few seconds, however many somebody makes.
    Ok(PATIENCE / u32::try_from(waiting.len() + 1).unwrap_or(u32::MAX))
}

impl Worker {
    fn with<T: Send + 'static>(
        &mut self,
        whose: Whose,
        patience: Duration,
        act: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        let unfinished = Arc::new(());
        let waited_for = Arc::downgrade(&unfinished);
        let (answer, answered) = sync_channel(1);
        let work = move || {
            let done = act();
            drop(unfinished);
            // Whoever has asked may have gone on without it.
            let _: Result<(), _> = answer.send(done);
        };
        self.thread()?.send(Box::new(work)).map_err(|_work| gone())?;
        match answered.recv_timeout(patience) {
            Ok(done) => Ok(done),
            Err(RecvTimeoutError::Timeout) => {
                // It ends when it has done this, because nobody is left to ask it for anything.
                self.0 = None;
                waiting().push((whose, waited_for));
                Err(kept_waiting())
            }
            Err(RecvTimeoutError::Disconnected) => {
                self.0 = None;
                Err(gone())
            }
        }
    }

    fn thread(&mut self) -> io::Result<&Sender<Work>> {
        if self.0.is_none() {
            let (worker, asked) = channel::<Work>();
            thread::Builder::new().name("patient".to_owned()).stack_size(STACK).spawn(
                move || {
                    IS_WORKER.set(true);
                    if let Err(error) = descriptors::keep_standard_ones_only() {
                        return tracing::error!(%error, "cannot close files on a thread");
                    }
                    asked.into_iter().for_each(|work| work());
                },
            )?;
            self.0 = Some(worker);
        }
        self.0.as_ref().ok_or_else(|| io::Error::other("nobody does it"))
    }
}

fn gone() -> io::Error {
    io::Error::other("the thread that was to do it has ended")
}

fn kept_waiting() -> io::Error {
    let message = "the server keeps whoever asks for it waiting";
    io::Error::new(io::ErrorKind::TimedOut, message)
}

/// A read takes microseconds, a look at directories milliseconds; a busy process or disk may take longer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Threads that are left behind; each has touched a few pages of its stack.
const MOST_WAITING: usize = 1000;
const STACK: usize = 256 << 10;

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
