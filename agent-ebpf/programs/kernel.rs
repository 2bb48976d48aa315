//! Reads fields of the kernel's own structures, whose places the loader tells.
//!
//! Rust programs cannot have their field accesses relocated by the loader, as C programs can (CO-RE): the compiler writes no
//! such relocations. So the loader reads the places from the kernel's type information, and the programs read by them.
//!
//! The verifier knows of which type each structure is here: it was an argument, or is a field of one that was. It knows the
//! places too, because the map that they are in can no longer change (`bpf_map_direct_read`), and so lets a program read a field
//! as it reads its own memory; one that is gone reads as zero. Only what it takes for outside of a structure needs the helper
//! for any address, which `lockdown=confidentiality` refuses.

use core::{arch::asm, ffi::c_void};

use agent_ebpf::member::{KernelLayout, MAX_PID_LEVEL};
use aya_ebpf::helpers::{bpf_get_current_task_btf, bpf_probe_read_kernel};

/// Set by the loader.
#[unsafe(no_mangle)]
pub(crate) static KERNEL_LAYOUT: KernelLayout = KernelLayout {
    task_pid: 0,
    task_tgid: 0,
    task_thread_pid: 0,
    task_signal: 0,
    signal_live: 0,
    file_inode: 0,
    inode_number: 0,
    pid_level: 0,
    pid_numbers: 0,
    pid_numbers_declared: 0,
    upid_size: 0,
    upid_nr: 0,
    sock_port: 0,
    sock_namespace: 0,
    namespace_number: 0,
    sock_group: 0,
    group_program: 0,
    program_aux: 0,
    aux_id: 0,
    lock_owned: 0,
    sock_proto: 0,
    sock_creator: 0,
    sock_user_data: 0,
    signal_pids: 0,
    task_parent: 0,
    task_cred: 0,
    cred_user: 0,
    cred_real_user: 0,
    signal_threads: 0,
    task_mm: 0,
    mm_code: 0,
    mm_stack: 0,
    mm_file: 0,
    file_entry: 0,
    entry_name: 0,
};

/// The loader's value of one field: a plain read would be folded to the zero above.
macro_rules! place_of {
    ($field:ident) => {
        // SAFETY: a static of this object, which lives in a read-only map.
        unsafe { core::ptr::read_volatile(&raw const KERNEL_LAYOUT.$field) as usize }
    };
}

/// A thread, as the kernel has it.
#[derive(Clone, Copy)]
pub(crate) struct Task(*const c_void);

impl Task {
    /// One that a tracepoint or an iterator was given.
    pub(crate) const fn new(task: *const c_void) -> Self {
        Self(task)
    }

    /// The one that runs.
    #[inline(always)]
    pub(crate) fn current() -> Self {
        // SAFETY: takes no argument, and returns the running thread.
        Self(unsafe { bpf_get_current_task_btf() }.cast_const().cast())
    }

    /// The number of its process, if it is the thread that the process began with.
    #[inline(always)]
    pub(crate) fn process(self) -> Option<u32> {
        let process: u32 = read(self.0, place_of!(task_tgid))?;
        let thread: u32 = read(self.0, place_of!(task_pid))?;
        (process == thread).then_some(process)
    }

    /// How many threads of its process have not begun to end.
    #[inline(always)]
    pub(crate) fn living_threads(self) -> Option<i32> {
        read(self.shared()?, place_of!(signal_live))
    }

    /// How deep the PID namespace is that it lives in.
    #[inline(always)]
    pub(crate) fn level(self) -> Option<u32> {
        read(self.numbers()?, place_of!(pid_level))
    }

    /// Its number in the namespace at this depth, of those that it is in.
    #[inline(always)]
    pub(crate) fn number_at(self, level: u32) -> Option<u32> {
        number_at(self.numbers()?, level)
    }

    /// The number of its process there.
    #[inline(always)]
    pub(crate) fn process_at(self, level: u32) -> Option<u32> {
        self.shared_number_at(PROCESS, level)
    }

    /// The number of the process there that began its session.
    #[inline(always)]
    pub(crate) fn session_at(self, level: u32) -> Option<u32> {
        self.shared_number_at(SESSION, level)
    }

    /// The number of its parent there. A process has the thread as its parent that forked it.
    #[inline(always)]
    pub(crate) fn parent_at(self, level: u32) -> Option<u32> {
        let parent: *const c_void = read(self.0, place_of!(task_parent))?;
        Self(parent).process_at(level)
    }

    /// The number of its process in the namespace that it lives in.
    #[inline(always)]
    pub(crate) fn process_inside(self) -> Option<u32> {
        let numbers = self.shared_numbers(PROCESS)?;
        number_at(numbers, read(numbers, place_of!(pid_level))?)
    }

    /// How many threads its process has.
    #[inline(always)]
    pub(crate) fn threads(self) -> Option<u32> {
        read(self.shared()?, place_of!(signal_threads))
    }

    /// Its effective user.
    #[inline(always)]
    pub(crate) fn user(self) -> Option<u32> {
        let rights: *const c_void = read(self.0, place_of!(task_cred))?;
        read(rights, place_of!(cred_user))
    }

    /// Its real user.
    #[inline(always)]
    pub(crate) fn real_user(self) -> Option<u32> {
        let rights: *const c_void = read(self.0, place_of!(task_cred))?;
        read(rights, place_of!(cred_real_user))
    }

    /// The inode of the file of its program.
    #[inline(always)]
    pub(crate) fn program(self) -> Option<u64> {
        let file: *const c_void = read(self.memory()?, place_of!(mm_file))?;
        inode_of(file)
    }

    /// Where the kernel placed its program.
    #[inline(always)]
    pub(crate) fn code(self) -> Option<u64> {
        read(self.memory()?, place_of!(mm_code))
    }

    /// Where the kernel placed its stack.
    #[inline(always)]
    pub(crate) fn stack(self) -> Option<u64> {
        read(self.memory()?, place_of!(mm_stack))
    }

    #[inline(always)]
    fn numbers(self) -> Option<*const c_void> {
        read(self.0, place_of!(task_thread_pid))
    }

    /// Nothing for a kernel thread, and for one that has ended.
    #[inline(always)]
    fn memory(self) -> Option<*const c_void> {
        read(self.0, place_of!(task_mm))
    }

    #[inline(always)]
    fn shared_number_at(self, kind: usize, level: u32) -> Option<u32> {
        number_at(self.shared_numbers(kind)?, level)
    }

    #[inline(always)]
    fn shared_numbers(self, kind: usize) -> Option<*const c_void> {
        read(self.shared()?, place_of!(signal_pids) + kind * size_of::<*const c_void>())
    }

    /// What the threads of its process share.
    #[inline(always)]
    fn shared(self) -> Option<*const c_void> {
        read(self.0, place_of!(task_signal))
    }
}

/// Which of the numbers that the threads of a process share (`enum pid_type`).
const PROCESS: usize = 1;
const SESSION: usize = 3;

/// That of these numbers (`struct pid`) which is for the namespace at this depth.
#[inline(always)]
fn number_at(numbers: *const c_void, level: u32) -> Option<u32> {
    let deepest: u32 = read(numbers, place_of!(pid_level))?;
    if level > MAX_PID_LEVEL || level > deepest {
        return None;
    }
    let first = place_of!(pid_numbers) + place_of!(upid_nr);
    if place_of!(pid_numbers_declared) != 0 {
        let number = numbers.wrapping_byte_add(first + level as usize * place_of!(upid_size));
        // SAFETY: the helper copes with any address.
        return unsafe { bpf_probe_read_kernel(number.cast()) }.ok();
    }
    // The verifier has to know the place, and so the level: it compares with one after the other.
    let known = (0..=MAX_PID_LEVEL as usize).map(told_apart).find(|it| *it == level as usize);
    read(numbers, first + known? * place_of!(upid_size))
}

/// Whether a file is a ring of io_uring. Its name is short, and so within its entry (`__d_alloc`).
#[inline(always)]
pub(crate) fn is_ring(file: *const c_void) -> bool {
    const NAME: [u8; 8] = *b"[io_urin";
    let entry: Option<*const c_void> = read(file, place_of!(file_entry));
    entry.and_then(|it| read(it, place_of!(entry_name))) == Some(u64::from_ne_bytes(NAME))
}

/// The number of the inode of a file.
#[inline(always)]
pub(crate) fn inode_of(file: *const c_void) -> Option<u64> {
    let inode: *const c_void = read(file, place_of!(file_inode))?;
    read(inode, place_of!(inode_number))
}

/// The port that a socket is bound to.
#[inline(always)]
pub(crate) fn port_of(socket: *const c_void) -> Option<u16> {
    read(socket, place_of!(sock_port))
}

/// The number of the network namespace that the agent serves. Set by the loader.
#[unsafe(no_mangle)]
pub(crate) static NETWORK_NAMESPACE: u32 = 0;

/// Whether a socket is in the network namespace that the agent serves: a tracing program sees those of all.
#[inline(always)]
pub(crate) fn is_in_our_namespace(socket: *const c_void) -> bool {
    // SAFETY: a static of this object, which lives in a read-only map.
    let ours = unsafe { core::ptr::read_volatile(&raw const NETWORK_NAMESPACE) };
    let namespace: Option<*const c_void> = read(socket, place_of!(sock_namespace));
    namespace.and_then(|it| read(it, place_of!(namespace_number))) == Some(ours)
}

/// The number of the program that chooses among the listeners of a socket's reuseport group, if the group has one.
#[inline(always)]
pub(crate) fn group_program_of(socket: *const c_void) -> Option<u32> {
    let group: *const c_void = read(socket, place_of!(sock_group))?;
    let program: *const c_void = read(group, place_of!(group_program))?;
    let known: *const c_void = read(program, place_of!(program_aux))?;
    read(known, place_of!(aux_id))
}

/// Whether somebody has a socket to themselves (`lock_sock`), and not only its spinlock (`lock_sock_fast`).
#[inline(always)]
pub(crate) fn is_owned(socket: *const c_void) -> bool {
    let owned: Option<i32> = read(socket, place_of!(lock_owned));
    owned.is_some_and(|it| it != 0)
}

/// Whether a listener can be put into a socket map without harm to what it accepts.
///
/// Not if it was accepted itself by one that was in a socket map, and then made a listener: by `connect()` to no address
/// (`AF_UNSPEC`), `bind()` and `listen()`. The kernel makes each socket that is accepted from a map's listener what the listener was
/// made as (`tcp_bpf_clone`), but remembers of it that it was made as what the map had made of the listener (`sk_clone_lock`). In a
/// map, such a one would accept sockets that pass for members and are none: their `close()` does nothing (`sock_map_close`), whoever
/// has them, and they are there until the machine ends.
#[inline(always)]
pub(crate) fn is_fit_for_map(socket: *const c_void) -> bool {
    let is: Option<u64> = read(socket, place_of!(sock_proto));
    let was_made_as: Option<u64> = read(socket, place_of!(sock_creator));
    let data: Option<u64> = read(socket, place_of!(sock_user_data));
    is == was_made_as || data.is_some_and(|it| it & IN_MAP != 0)
}

/// `SK_USER_DATA_PSOCK`: a socket map has it.
const IN_MAP: u64 = 4;

/// A value that the compiler does not take for that of another variable, however they compare.
#[inline(always)]
fn told_apart(value: usize) -> usize {
    let mut same = value;
    // SAFETY: the register keeps its value. Without an instruction two lines would begin at one, which the verifier refuses.
    unsafe { asm!("{0} = {0}", inout(reg) same, options(nomem, nostack, preserves_flags)) };
    same
}

/// A field; nothing if the structure is not there.
#[inline(always)]
fn read<T: Copy>(structure: *const c_void, place: usize) -> Option<T> {
    if structure.is_null() {
        return None;
    }
    let field = structure.wrapping_byte_add(place).cast::<T>();
    // SAFETY: the verifier takes only reads of a field of the structure, and the kernel answers zero where that is gone.
    Some(unsafe { field.read_volatile() })
}
