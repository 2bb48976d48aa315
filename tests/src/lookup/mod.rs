//! A program for lookups, run by the kernel as for a SYN but without one.

#![expect(unsafe_code, reason = "a system call is reached by its number")]

pub mod steered;
pub mod yardsticks;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd as _};

use nix::libc;

/// What a client asks for: who it is, and where it connects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// The client's address, of the same family as the other.
    pub remote: SocketAddr,
    /// The address that it connects to.
    pub local: SocketAddr,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Looked {
    /// The cookie of the listener that was assigned; zero where none was.
    pub listener: u64,
    /// The mean of all runs, in whole nanoseconds.
    pub nanoseconds: u32,
}

impl Lookup {
    /// Has the kernel run a program so often, in the calling thread's network namespace.
    ///
    /// # Errors
    ///
    /// When the kernel refuses: the program is no `sk_lookup` one, or the right to run it is missing.
    #[doc(alias = "BPF_PROG_TEST_RUN")]
    pub fn run(self, program: impl AsFd, times: u32) -> io::Result<Looked> {
        let mut context = self.context();
        let mut test = TestRun {
            prog_fd: program.as_fd().as_raw_fd(),
            retval: 0,
            data_size_in: 0,
            data_size_out: 0,
            data_in: 0,
            data_out: 0,
            repeat: times,
            duration: 0,
            ctx_size_in: size_of::<Context>() as u32,
            ctx_size_out: size_of::<Context>() as u32,
            ctx_in: (&raw const context).expose_provenance() as u64,
            ctx_out: (&raw mut context).expose_provenance() as u64,
        };
        // SAFETY: the kernel reads and writes the size given of `test`, and what its two pointers point to, which has the
        // sizes given beside them; both live until after the call, and nobody else refers to them during it.
        let result = unsafe {
            libc::syscall(libc::SYS_bpf, BPF_PROG_TEST_RUN, &raw mut test, size_of::<TestRun>())
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: as above; read where the kernel wrote, which the compiler does not see.
        let listener = unsafe { (&raw const context.cookie).read_volatile() };
        Ok(Looked { listener, nanoseconds: test.duration })
    }

    fn context(self) -> Context {
        let (family, remote_ip4, remote_ip6) = address(self.remote);
        let (_, local_ip4, local_ip6) = address(self.local);
        Context {
            cookie: 0,
            family,
            protocol: libc::IPPROTO_TCP.cast_unsigned(),
            remote_ip4,
            remote_ip6,
            remote_port: self.remote.port().to_be(),
            zero: 0,
            local_ip4,
            local_ip6,
            local_port: self.local.port().into(),
            ingress_ifindex: 0,
            padding: 0,
        }
    }
}

/// The family, and the address where the context has it for that family, in network byte order.
fn address(of: SocketAddr) -> (u32, u32, [u32; 4]) {
    match of {
        SocketAddr::V4(of) => {
            (libc::AF_INET.cast_unsigned(), u32::from_ne_bytes(of.ip().octets()), [0; 4])
        }
        SocketAddr::V6(of) => {
            let mut words = [0; 4];
            for (word, bytes) in words.iter_mut().zip(of.ip().octets().as_chunks::<4>().0) {
                *word = u32::from_ne_bytes(*bytes);
            }
            (libc::AF_INET6.cast_unsigned(), 0, words)
        }
    }
}

/// `struct bpf_sk_lookup`: what a lookup program is given. On the way back `cookie` is that of the socket it assigned.
#[repr(C)]
struct Context {
    cookie: u64,
    family: u32,
    protocol: u32,
    remote_ip4: u32,
    remote_ip6: [u32; 4],
    remote_port: u16,
    zero: u16,
    local_ip4: u32,
    local_ip6: [u32; 4],
    local_port: u32,
    /// A test run refuses any but zero.
    ingress_ifindex: u32,
    padding: u32,
}

/// The part of `union bpf_attr` for `BPF_PROG_TEST_RUN`, as far as a context goes.
#[repr(C)]
struct TestRun {
    prog_fd: i32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
}

const _: () = assert!(size_of::<Context>() == 72);
const _: () = assert!(size_of::<TestRun>() == 64);

const BPF_PROG_TEST_RUN: libc::c_int = 10;
