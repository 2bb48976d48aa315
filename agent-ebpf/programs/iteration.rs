//! What the programs have in common that the kernel runs for each of something as a file is read.

use aya_ebpf::{bindings::seq_file, helpers::generated::bpf_seq_write};

/// The beginning of `struct bpf_iter_meta`, to which the first member of every iterator's context points.
#[repr(C)]
pub(crate) struct Meta {
    output: *mut seq_file,
}

/// Tells the reader. A full buffer makes him come again.
#[inline(always)]
pub(crate) fn tell_reader<T>(meta: *mut Meta, what: &T) {
    // SAFETY: the kernel passes a valid context, whose first member points to one that begins with the file to write to.
    unsafe { bpf_seq_write((*meta).output, (&raw const *what).cast(), size_of::<T>() as u32) };
}
