//! What the agent asks of the machine, and does to it, apart from BPF.
//!
//! - [`sock_diag`]: which listeners and flows there are, as the kernel tells it
//! - [`process`]: one process, held so that it can never be mistaken for another
//! - [`holders`]: which processes have a listener, and which of them belong together
//! - [`context`]: what a process was given: user, directory, environment, limits, namespaces
//! - [`names`]: PID files and Unix sockets, and how a name outlives its removal
//! - [`init`]: which PID namespace ends with a process
//! - [`cgroup`]: the bag that holds all processes of a generation
//! - [`launch`]: starts a new generation with what the old one was given
//! - [`syn_cookies`]: whether listeners overflow
//! - [`mounts`]: what is mounted where
//! - [`os_text`]: text of the operating system that survives JSON
//!
//! Every function here is synchronous and may block for as long as the kernel takes: an
//! asynchronous caller puts it on a thread of its own.

pub mod cgroup;
pub mod context;
pub mod holders;
pub mod init;
pub mod launch;
pub mod mounts;
pub mod names;
pub mod os_text;
pub mod process;
pub mod sock_diag;
pub mod syn_cookies;
