//! The allocator, where Rust has no word for what is wanted of it.

#![cfg_attr(target_env = "gnu", expect(unsafe_code, reason = "a function of the C library"))]

/// Gives memory that nothing uses any more back to the system.
///
/// The C library keeps it for the next allocation by itself: of what reading the kernel's type information takes for a moment,
/// 12 MiB stayed resident for good (measured, glibc 2.36).
pub(crate) fn give_back_unused() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointer, changes nothing that is in use, and any thread may call it (malloc_trim(3)).
    unsafe {
        nix::libc::malloc_trim(0)
    };
}

/// Has all threads allocate in one place. To be called before there is a second one.
///
/// The C library gives threads that are busy at the same time a place each. It reserves 64 MiB of addresses for it, which a limit
/// (`RLIMIT_AS`) may not allow, and keeps what was used of it once: under load 8.5 MiB after ten minutes and more with each, where
/// one place had 6.1 MiB after eight and no more than after four (`cargo xtask soak`, glibc 2.36). None of our threads allocates so
/// often that it would wait for another one.
pub(crate) fn allocate_in_one_place() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointer, and there is one thread (mallopt(3)).
    unsafe {
        nix::libc::mallopt(nix::libc::M_ARENA_MAX, 1)
    };
}
