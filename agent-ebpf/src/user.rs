//! Lets user space read and write the layouts as map keys and values.

#![expect(unsafe_code, reason = "layouts are handed to the kernel as bytes")]

use crate::{
    bind::BindRule,
    endpoint::{Endpoint, EndpointKey},
    flow::{FlowCounts, GenerationKey, Tag},
    member::{Enlistment, KernelLayout, Member},
    process::{OpenRow, ProcessRow},
    socket::{Adoption, FlowRequest},
    steering::{ListenerSet, ListenerSetKey, SteerCounts, Steering},
};

macro_rules! pod {
    ($($layout:ty),+ $(,)?) => {
        $(
            // SAFETY: `#[repr(C)]`, made of integers only, without padding (the size assertions beside it), so that every
            // bit pattern is a value and every byte is initialised.
            unsafe impl aya::Pod for $layout {}
        )+
    };
}

pod!(
    Adoption,
    BindRule,
    Endpoint,
    EndpointKey,
    Enlistment,
    FlowCounts,
    GenerationKey,
    KernelLayout,
    ListenerSet,
    ListenerSetKey,
    Member,
    OpenRow,
    ProcessRow,
    SteerCounts,
    Steering,
    Tag,
);

impl FlowRequest {
    /// As a program is given it.
    pub const fn as_bytes(&self) -> &[u8] {
        // SAFETY: `#[repr(C)]`, integers only, without padding (the size assertion beside it): every byte is initialised.
        unsafe { core::slice::from_raw_parts(core::ptr::from_ref(self).cast(), size_of::<Self>()) }
    }
}

/// What an iterator has written, row by row. A part of a row at the end is none.
pub fn rows<T: aya::Pod>(told: &[u8]) -> impl Iterator<Item = T> {
    // SAFETY: so many bytes are there, and any bytes are a `Pod`.
    told.chunks_exact(size_of::<T>())
        .map(|row| unsafe { row.as_ptr().cast::<T>().read_unaligned() })
}
