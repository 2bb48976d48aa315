//! How much the kernel keeps with a socket.

use std::fs;

/// It keeps less than the agent puts there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`net.core.optmem_max` is {0}: the kernel keeps nothing more with a socket")]
pub struct OptionMemory(u64);

impl OptionMemory {
    /// What to do about it.
    pub const FIX: &str =
        "`sysctl net.core.optmem_max=20480`: what the agent keeps with a socket counts for it";
}

/// Looks at the limit of this network namespace.
///
/// # Errors
///
/// When it is too low.
///
/// # Kernel
///
/// `sk_storage_charge` refuses what would go beyond it. The usual value is 20,480 or more; a tag and its place take less than 200
/// bytes, and what a server sets itself counts too.
pub fn examine() -> Result<(), OptionMemory> {
    const LEAST: u64 = 1000;
    let most = fs::read_to_string("/proc/sys/net/core/optmem_max").ok();
    match most.and_then(|text| text.trim().parse().ok()).filter(|most| *most < LEAST) {
        Some(most) => Err(OptionMemory(most)),
        None => Ok(()),
    }
}
