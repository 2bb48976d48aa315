//! Lets user space read and write the layouts as map keys and values.

#![expect(unsafe_code, reason = "aya's marker trait is unsafe to implement")]

use crate::{
    bind::BindRule,
    endpoint::{Endpoint, EndpointKey},
    flow::{FlowCounts, GenerationKey, Tag},
    socket::Adoption,
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
    FlowCounts,
    GenerationKey,
    ListenerSet,
    ListenerSetKey,
    SteerCounts,
    Steering,
    Tag,
);
