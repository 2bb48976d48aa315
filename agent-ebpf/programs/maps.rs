//! Everything the programs know. All maps are pinned by name, so that they outlive the agent.

use agent_ebpf::{
    MAX_ENDPOINTS, MAX_LISTENERS, MAX_MEMBERS, MAX_MEMBERS_OF_SERVICE, MAX_SERVICES,
    bind::BindRule,
    endpoint::{Endpoint, EndpointKey},
    flow::{FlowCounts, GenerationKey, Tag},
    member::{Enlistment, Member},
    socket::Adoption,
    steering::{ListenerSet, ListenerSetKey, SteerCounts, Steering},
};
use aya_ebpf::{
    bindings::{BPF_F_CLONE, BPF_F_NO_PREALLOC, bpf_map_type::BPF_MAP_TYPE_SK_STORAGE},
    helpers::generated::{bpf_sk_storage_delete, bpf_sk_storage_get},
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf, SockMap},
};

#[map]
pub(crate) static ENDPOINTS: HashMap<EndpointKey, Endpoint> = HashMap::pinned(MAX_ENDPOINTS, 0);

#[map]
pub(crate) static SERVICES: HashMap<u32, Steering> = HashMap::pinned(MAX_SERVICES, 0);

#[map]
pub(crate) static LISTENER_SETS: HashMap<ListenerSetKey, ListenerSet> =
    HashMap::pinned(MAX_LISTENERS, 0);

#[map]
pub(crate) static LISTENERS: SockMap = SockMap::pinned(MAX_LISTENERS, 0);

#[map]
pub(crate) static STEERED: PerCpuArray<SteerCounts> = PerCpuArray::pinned(MAX_SERVICES, 0);

#[map]
pub(crate) static FLOWS: HashMap<GenerationKey, FlowCounts> = HashMap::pinned(MAX_LISTENERS, 0);

#[map]
pub(crate) static BIND_RULES: HashMap<GenerationKey, BindRule> = HashMap::pinned(MAX_LISTENERS, 0);

/// Not preallocated: most servers have a few processes.
#[map]
pub(crate) static MEMBERS: HashMap<u32, Member> = HashMap::pinned(MAX_MEMBERS, BPF_F_NO_PREALLOC);

/// How many of them each service has.
#[map]
pub(crate) static MEMBER_COUNTS: Array<u64> = Array::pinned(MAX_SERVICES, 0);

/// Filled by the agent just before it runs `enlist`.
#[map]
pub(crate) static ENLISTMENTS: HashMap<u32, Enlistment> =
    HashMap::pinned(MAX_MEMBERS_OF_SERVICE, BPF_F_NO_PREALLOC);

/// The public port of each listener that was moved to another one, by socket cookie.
#[map]
pub(crate) static MOVED_BINDS: LruHashMap<u64, u32> = LruHashMap::pinned(MAX_LISTENERS, 0);

/// Filled by the agent just before it runs `adopt_listeners`. Not preallocated: it is empty but for those moments.
#[map]
pub(crate) static ADOPTIONS: HashMap<u64, Adoption> =
    HashMap::pinned(MAX_LISTENERS, BPF_F_NO_PREALLOC);

#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::pinned(1 << 16, 0);

/// How many events were lost because `EVENTS` was full, and how many of those the agent knows of.
#[map]
pub(crate) static LOST_REPORTS: Array<u64> = Array::pinned(2, 0);

/// The socket storage that makes a connection know its generation.
///
/// Declared by hand, because socket storage needs `BPF_F_CLONE` here and a `get` for sockets of a tracing program.
#[repr(C)]
pub(crate) struct TagStorage {
    r#type: *const [i32; BPF_MAP_TYPE_SK_STORAGE as usize],
    map_flags: *const [i32; (BPF_F_NO_PREALLOC | BPF_F_CLONE) as usize],
    key: *const i32,
    value: *const Tag,
    pinning: *const [i32; 1],
}

// SAFETY: the pointers are never followed: they only describe the map's type to the loader.
unsafe impl Sync for TagStorage {}

#[unsafe(link_section = ".maps")]
#[unsafe(no_mangle)]
pub(crate) static TAGS: TagStorage = TagStorage {
    r#type: core::ptr::null(),
    map_flags: core::ptr::null(),
    key: core::ptr::null(),
    value: core::ptr::null(),
    pinning: core::ptr::null(),
};

impl TagStorage {
    /// The tag of a socket, or null.
    ///
    /// # Safety
    ///
    /// `socket` must be one that the kernel handed to this program.
    #[inline(always)]
    pub(crate) unsafe fn get(&self, socket: *mut core::ffi::c_void) -> *mut Tag {
        // SAFETY: the verifier checks map and socket; with a null value and no flag the helper only reads.
        unsafe { bpf_sk_storage_get(self.as_ptr(), socket, core::ptr::null_mut(), 0).cast() }
    }

    /// The tag of a socket, made from `tag` where there was none, or null where there is no memory.
    ///
    /// # Safety
    ///
    /// `socket` must be one that the kernel handed to this program.
    #[inline(always)]
    pub(crate) unsafe fn get_or_create(
        &self,
        socket: *mut core::ffi::c_void,
        tag: &mut Tag,
    ) -> *mut Tag {
        // SAFETY: as above; the kernel copies `tag`, which has the map's value type.
        unsafe {
            bpf_sk_storage_get(self.as_ptr(), socket, core::ptr::from_mut(tag).cast(), 1).cast()
        }
    }

    /// Removes the tag of a socket.
    ///
    /// # Safety
    ///
    /// `socket` must be one that the kernel handed to this program.
    #[inline(always)]
    pub(crate) unsafe fn remove(&self, socket: *mut core::ffi::c_void) -> i64 {
        // SAFETY: the verifier checks map and socket.
        unsafe { bpf_sk_storage_delete(self.as_ptr(), socket) }
    }

    const fn as_ptr(&self) -> *mut core::ffi::c_void {
        core::ptr::from_ref(self).cast_mut().cast()
    }
}
