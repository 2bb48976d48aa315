//! The `bpf` system call, where aya has no function for it.

#![expect(unsafe_code, reason = "a system call is reached by its number")]

use std::{
    ffi::CString,
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use aya::{
    Pod,
    maps::{MapData, MapError},
    sys::SyscallError,
};
use nix::libc;

/// The numbers of the `sk_lookup` programs that are attached to a network namespace, in the order in which they run.
///
/// # Errors
///
/// When the kernel does not know such programs, or refuses to say without `CAP_NET_ADMIN`.
#[doc(alias = "BPF_PROG_QUERY")]
pub(crate) fn lookup_programs(network_namespace: impl AsFd) -> io::Result<Vec<u32>> {
    query(network_namespace, AttachType::SocketLookup as u32, 0)
}

/// The numbers of the programs of a kind that are attached to something.
pub(super) fn query(target: impl AsFd, attach_type: u32, flags: u32) -> io::Result<Vec<u32>> {
    let mut ids = [0_u32; MOST];
    let mut query = ProgQuery {
        target_fd: target.as_fd().as_raw_fd(),
        attach_type,
        query_flags: flags,
        attach_flags: 0,
        prog_ids: (&raw mut ids).expose_provenance() as u64,
        prog_cnt: MOST as u32,
        zero: 0,
    };
    // SAFETY: the kernel reads and writes at most the size given of `query`, and `prog_cnt` numbers where `prog_ids` points
    // to; both live until after the call and nobody else refers to them during it.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_QUERY, &raw mut query, size_of::<ProgQuery>())
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(ids.into_iter().take(query.prog_cnt as usize).collect())
}

/// A descriptor of the map, program or link that is pinned at `path`.
///
/// # Errors
///
/// When there is none, or the kernel refuses to open it.
#[doc(alias = "BPF_OBJ_GET")]
pub(crate) fn open_pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let descriptor = object(BPF_OBJ_GET, &path, 0)?;
    // SAFETY: the kernel has just made the descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Pins a map, program or link at `path`, where nothing may be yet.
///
/// # Errors
///
/// When `path` is taken or not on a BPF file system.
#[doc(alias = "BPF_OBJ_PIN")]
pub(crate) fn pin(object_to_pin: impl AsFd, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    object(BPF_OBJ_PIN, &path, object_to_pin.as_fd().as_raw_fd().cast_unsigned()).map(drop)
}

fn object(command: libc::c_int, path: &CString, bpf_fd: u32) -> io::Result<i32> {
    let attributes = ObjectAttributes {
        pathname: path.as_ptr().expose_provenance() as u64,
        bpf_fd,
        file_flags: 0,
    };
    // SAFETY: the kernel reads at most the size given of `attributes`, and the string that `pathname` points to, which ends
    // with a zero; both live until after the call.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, &raw const attributes, size_of::<ObjectAttributes>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

/// The part of `union bpf_attr` for `BPF_OBJ_*`, as far as its first version went, and the flags of the second.
#[repr(C)]
struct ObjectAttributes {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

const _: () = assert!(size_of::<ObjectAttributes>() == 16);

/// Attaches a program to a control group or a network namespace, by a link that keeps it there.
///
/// # Errors
///
/// When the kernel refuses.
#[doc(alias = "BPF_LINK_CREATE")]
pub(crate) fn create_link(
    program: impl AsFd,
    target: impl AsFd,
    attach_type: AttachType,
) -> io::Result<OwnedFd> {
    link(&program, target.as_fd().as_raw_fd(), attach_type as u32)
}

/// Makes a link of an iterator, which runs it as often as [`run_iterator`] is called.
///
/// # Errors
///
/// When the kernel refuses.
#[doc(alias = "BPF_TRACE_ITER")]
pub(crate) fn link_iterator(program: impl AsFd) -> io::Result<OwnedFd> {
    // The kernel wants no target for an iterator.
    link(&program, 0, BPF_TRACE_ITER)
}

/// The same for an iterator over tasks or their files, of which it runs over those of one process: of this number, as whoever reads
/// has it. There may be none.
///
/// # Errors
///
/// As [`link_iterator`]; `EINVAL` before Linux 6.1.
pub(crate) fn link_iterator_over(program: impl AsFd, pid: u32) -> io::Result<OwnedFd> {
    // `bpf_iter_link_info.task`: a thread, a process, a descriptor of one; 0 stands for none.
    let of = [0, pid, 0];
    create(&IteratorCreate {
        link: LinkCreate {
            prog_fd: program.as_fd().as_raw_fd(),
            target_fd: 0,
            attach_type: BPF_TRACE_ITER,
            flags: 0,
        },
        iter_info: (&raw const of).expose_provenance() as u64,
        iter_info_len: size_of_val(&of) as u32,
        zero: 0,
    })
}

fn link(program: &impl AsFd, target_fd: i32, attach_type: u32) -> io::Result<OwnedFd> {
    let prog_fd = program.as_fd().as_raw_fd();
    create(&LinkCreate { prog_fd, target_fd, attach_type, flags: 0 })
}

/// Makes a link of the `link_create` part of `union bpf_attr`.
fn create<T>(attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads the size given of `attributes`, and what they point to; both live until after the call.
    let result = unsafe {
        let size = size_of::<T>();
        libc::syscall(libc::SYS_bpf, BPF_LINK_CREATE, std::ptr::from_ref(attributes), size)
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made the descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(result as i32) })
}

/// A file that runs an iterator as it is read.
///
/// # Errors
///
/// When the kernel refuses.
#[doc(alias = "BPF_ITER_CREATE")]
pub(crate) fn run_iterator(link: impl AsFd) -> io::Result<File> {
    const BPF_ITER_CREATE: libc::c_int = 33;
    let create = [link.as_fd().as_raw_fd().cast_unsigned(), 0];
    // SAFETY: the kernel reads the size given of `create`, which lives until after the call.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_ITER_CREATE, &raw const create, size_of_val(&create))
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made the descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(result as i32) }.into())
}

/// What a program is asked about (`enum bpf_attach_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum AttachType {
    /// A socket that is made.
    SocketCreate = 2,
    /// A bind to an address of IPv4.
    Bind4 = 8,
    /// The same of IPv6.
    Bind6 = 9,
    /// Which address of IPv4 a socket has.
    SocketName4 = 31,
    /// The same of IPv6.
    SocketName6 = 32,
    /// Which listener a connection is for.
    SocketLookup = 36,
}

/// All entries of a hash map that others change.
///
/// Who asks for one key after the other begins anew whenever the one that he stands at is removed
/// (`htab_map_get_next_key`): as long as somebody adds and removes without pause, that has no end. This goes from bucket to
/// bucket, each as it is in one moment (`__htab_map_lookup_and_delete_batch`).
///
/// # Errors
///
/// When the kernel refuses, the map is of other types, or one bucket has more than `most` entries.
#[doc(alias = "BPF_MAP_LOOKUP_BATCH")]
pub(crate) fn entries<K: Pod, V: Pod>(map: &MapData, most: u32) -> Result<Vec<(K, V)>, MapError> {
    let sizes = (map.info()?.key_size(), map.info()?.value_size());
    if sizes != (size_of::<K>() as u32, size_of::<V>() as u32) {
        let (size, expected) = (sizes.1 as usize, size_of::<V>());
        return Err(MapError::InvalidValueSize { size, expected });
    }
    let mut keys = Vec::<K>::with_capacity(most as usize);
    let mut values = Vec::<V>::with_capacity(most as usize);
    let mut found = Vec::new();
    let mut next: Option<u32> = None;
    loop {
        let mut bucket = next.unwrap_or_default();
        let place = (&raw mut bucket).expose_provenance() as u64;
        let mut batch = MapBatch {
            in_batch: next.map_or(0, |_| place),
            out_batch: place,
            keys: keys.as_mut_ptr().expose_provenance() as u64,
            values: values.as_mut_ptr().expose_provenance() as u64,
            count: most,
            map_fd: map.fd().as_fd().as_raw_fd().cast_unsigned(),
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: the kernel writes at most `count` keys and values, whose sizes are those of the map and for which the vectors
        // have room, the number of a bucket, and `batch`. All of them live until after the call; nobody else refers to them.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                BPF_MAP_LOOKUP_BATCH,
                &raw mut batch,
                size_of::<MapBatch>(),
            )
        };
        let error = (result < 0).then(io::Error::last_os_error);
        // There is no bucket behind these.
        let ended = error.as_ref().is_some_and(|it| it.raw_os_error() == Some(libc::ENOENT));
        if let Some(io_error) = error.filter(|_| !ended) {
            return Err(SyscallError { call: "bpf_map_lookup_batch", io_error }.into());
        }
        // SAFETY: the kernel has written so many of both, and anything is a `Pod`.
        unsafe {
            keys.set_len(batch.count.min(most) as usize);
            values.set_len(batch.count.min(most) as usize);
        }
        found.extend(keys.drain(..).zip(values.drain(..)));
        if ended {
            return Ok(found);
        }
        next = Some(bucket);
    }
}

/// Puts another program behind a link: from one packet, bind or socket to the next, without one that meets none.
///
/// # Errors
///
/// When the kernel refuses; the old program then stays. `ENOLINK`: what the link was attached to is gone.
#[doc(alias = "BPF_LINK_UPDATE")]
pub(crate) fn update_link(link: impl AsFd, program: impl AsFd) -> io::Result<()> {
    let mut update = LinkUpdate {
        link_fd: link.as_fd().as_raw_fd(),
        new_prog_fd: program.as_fd().as_raw_fd(),
        flags: 0,
        old_prog_fd: 0,
    };
    // SAFETY: the kernel reads the size given of `update`, which lives until after the call and points nowhere.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_LINK_UPDATE, &raw mut update, size_of::<LinkUpdate>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The `query` part of `union bpf_attr`, as far as its first version went: every kernel takes a shorter one.
#[repr(C)]
struct ProgQuery {
    target_fd: i32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    zero: u32,
}

/// The `link_create` part of `union bpf_attr`, as far as its first version went.
#[repr(C)]
struct LinkCreate {
    prog_fd: i32,
    target_fd: i32,
    attach_type: u32,
    flags: u32,
}

/// The same for an iterator that has something to go by.
#[repr(C)]
struct IteratorCreate {
    link: LinkCreate,
    iter_info: u64,
    iter_info_len: u32,
    zero: u32,
}

/// The `link_update` part of `union bpf_attr`.
#[repr(C)]
struct LinkUpdate {
    link_fd: i32,
    new_prog_fd: i32,
    flags: u32,
    old_prog_fd: u32,
}

/// The `batch` part of `union bpf_attr`.
#[repr(C)]
struct MapBatch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

const _: () = assert!(size_of::<MapBatch>() == 56);
const _: () = assert!(size_of::<ProgQuery>() == 32);
const _: () = assert!(size_of::<LinkCreate>() == 16);
const _: () = assert!(size_of::<IteratorCreate>() == 32);
const _: () = assert!(size_of::<LinkUpdate>() == 16);

/// The kernel attaches 64 to one namespace (`netns_bpf_max_progs`) and 64 of a kind to one group (`BPF_CGROUP_MAX_PROGS`), and those of
/// groups above count too.
const MOST: usize = 1024;
const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_LINK_UPDATE: libc::c_int = 29;
const BPF_TRACE_ITER: u32 = 28;

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn a_descriptor_of_anything_else_is_refused() {
        assert!(lookup_programs(File::open("/proc/self/stat").unwrap()).is_err());
        let path = Path::new("/proc/self/stat");
        assert!(pin(File::open(path).unwrap(), Path::new("/tmp/nothing")).is_err());
        assert!(open_pinned(path).is_err());
        let stranger = File::open(path).unwrap();
        assert!(update_link(&stranger, &stranger).is_err());
    }
}
