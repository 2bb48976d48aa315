//! What the agent asks of the machine, and does to it, apart from BPF.
//!
//! - [`sock_diag`]: which listeners and flows there are, as the kernel tells it
//! - [`process`]: one process, held so that it can never be mistaken for another
//! - [`holders`]: which processes have a listener
//! - [`servers`]: which of those are one server, and which only have it open
//! - [`accepting`]: which of them show that they accept
//! - [`image`]: which processes are forks of each other
//! - [`master`]: who starts a server's workers anew
//! - [`starter`]: who started a server, and may start it again
//! - [`process_table`]: all processes at one look, and who descends from whom
//! - [`kin`]: children, users
//! - [`supervisor`]: who starts a server again when it ends
//! - [`context`]: what a process was given: user, directory, environment, limits, namespaces
//! - [`confinement`]: what keeps a process from doing all that its user may
//! - [`limit`]: how much of something a process may use
//! - [`doors`]: where a process can be reached besides TCP
//! - [`bounded`]: files of which others decide what they are, and how large
//! - [`patience`]: what a process may keep whoever does it waiting for
//! - `unix_sockets`: the kernel's table of Unix sockets, with addresses of any kind
//! - [`bpf_links`]: who holds the attachment of a BPF program
//! - [`names`]: PID files and Unix sockets, and how a name outlives its removal
//! - [`init`]: which PID namespace ends with a process
//! - [`cgroup`]: the bag that holds all processes of a generation
//! - [`launch`]: starts a new generation with what the old one was given
//! - [`probe`]: connections of our own that show whether a server accepts
//! - [`loopback`]: whether such connections can be made
//! - [`syn_cookies`]: whether listeners overflow
//! - [`mounts`]: what is mounted where
//! - [`proc_mount`]: whether `/proc` shows what is read there
//! - [`sys_mount`]: whether `/sys` shows the kernel
//! - [`socket_options`]: how much the kernel keeps with a socket
//! - [`tasks`]: how many processes and threads may be started
//! - [`null_device`]: whether there is a `/dev/null`
//! - [`objects`]: what it waits with
//! - [`room`]: whether a directory takes what has to be written
//! - [`seccomp`]: system calls that a filter refuses
//! - [`ended`]: why a process of ours ended that could not say so
//! - [`os_text`]: text of the operating system that survives JSON
//!
//! Every function here is synchronous and may block for as long as the kernel takes: an
//! asynchronous caller puts it on a thread of its own.

pub mod accepting;
pub mod bounded;
pub mod bpf_links;
pub mod capabilities;
pub mod cgroup;
pub mod confinement;
pub mod context;
pub mod doors;
pub mod ended;
#[cfg(test)]
mod fuzz;
pub mod holders;
pub mod image;
pub mod init;
mod io_uring;
pub mod kin;
pub mod launch;
pub mod limit;
pub mod loopback;
pub mod master;
pub mod mounts;
pub mod names;
pub mod null_device;
pub mod objects;
pub mod open_files;
pub mod os_text;
pub mod patience;
pub mod probe;
pub mod proc_mount;
pub mod process;
pub mod process_table;
pub mod room;
pub mod seccomp;
pub mod servers;
mod set_id;
pub mod sock_diag;
pub mod socket_options;
pub mod starter;
pub mod supervisor;
pub mod syn_cookies;
pub mod sys_mount;
pub mod tasks;
mod unix_sockets;
