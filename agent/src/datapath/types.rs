//! Where the kernel's own structures have their fields, read from its type information.
//!
//! Only what [`KernelLayout`] needs. Libraries for the format were looked at: aya's own reader keeps structures to itself,
//! `btf-rs` is under a licence that this project does not take, and `btf` knows no types of kernels after 5.15.
//!
//! # Kernel
//!
//! The format is that of `Documentation/bpf/btf.rst`: a header, the types one after the other, their names.

use std::{collections::HashMap, fs, io};

use agent_ebpf::member::KernelLayout;

#[cfg(debug_assertions)]
use super::programs::is_switched_off;

/// The layout of the kernel that runs.
///
/// # Errors
///
/// When the kernel has no type information, or structures that we do not know.
pub(super) fn kernel_layout() -> io::Result<KernelLayout> {
    let bytes = fs::read("/sys/kernel/btf/vmlinux")?;
    let types = Types::parse(&bytes)?;
    let layout = layout_in(&types)?;
    #[cfg(debug_assertions)]
    if is_switched_off(OWNED_WALK) {
        // As if no listener were ever owned: nothing waits for the lock of one that nobody has.
        return Ok(KernelLayout { lock_owned: types.place("sock", "sk_backlog.len")?, ..layout });
    }
    Ok(layout)
}

/// What a test calls the lock that the kernel's walk of sockets has since Linux 6.5.
#[cfg(debug_assertions)]
const OWNED_WALK: &str = "owned_walk";

fn layout_in(types: &Types<'_>) -> io::Result<KernelLayout> {
    let place = |structure, field| types.place(structure, field);
    Ok(KernelLayout {
        task_pid: place("task_struct", "pid")?,
        task_tgid: place("task_struct", "tgid")?,
        task_thread_pid: place("task_struct", "thread_pid")?,
        task_signal: place("task_struct", "signal")?,
        signal_live: place("signal_struct", "live")?,
        file_inode: place("file", "f_inode")?,
        inode_number: place("inode", "i_ino")?,
        pid_level: place("pid", "level")?,
        pid_numbers: place("pid", "numbers")?,
        pid_numbers_declared: types.elements("pid", "numbers")?,
        upid_size: types.structure("upid")?.size,
        upid_nr: place("upid", "nr")?,
        sock_port: place("sock_common", "skc_num")?,
        sock_namespace: place("sock_common", "skc_net")?,
        namespace_number: place("net", "ns")? + place("ns_common", "inum")?,
        sock_group: place("sock", "sk_reuseport_cb")?,
        group_program: place("sock_reuseport", "prog")?,
        program_aux: place("bpf_prog", "aux")?,
        aux_id: place("bpf_prog_aux", "id")?,
        lock_owned: place("sock", "sk_lock.owned")?,
        sock_proto: place("sock_common", "skc_prot")?,
        sock_creator: place("sock", "sk_prot_creator")?,
        sock_user_data: place("sock", "sk_user_data")?,
        signal_pids: place("signal_struct", "pids")?,
        task_parent: place("task_struct", "real_parent")?,
        task_cred: place("task_struct", "cred")?,
        cred_user: place("cred", "euid")?,
        cred_real_user: place("cred", "uid")?,
        signal_threads: place("signal_struct", "nr_threads")?,
        task_mm: place("task_struct", "mm")?,
        mm_code: place("mm_struct", "start_code")?,
        mm_stack: place("mm_struct", "start_stack")?,
        mm_file: place("mm_struct", "exe_file")?,
        file_entry: place("file", "f_path.dentry")?,
        entry_name: place("dentry", "d_iname").or_else(|_| place("dentry", "d_shortname"))?,
    })
}

/// All types, by their numbers.
struct Types<'a> {
    names: &'a [u8],
    structures: HashMap<u32, Structure<'a>>,
    /// How many elements an array has.
    arrays: HashMap<u32, u32>,
    /// What a name stands for that is another type's, and what is qualified (`const`).
    aliases: HashMap<u32, u32>,
    by_name: HashMap<&'a [u8], u32>,
}

/// A structure or a union.
struct Structure<'a> {
    /// In bytes.
    size: u32,
    /// Whether the places of members carry the widths of bit fields too.
    has_bit_fields: bool,
    members: &'a [[u8; 4]],
}

impl<'a> Types<'a> {
    fn parse(bytes: &'a [u8]) -> io::Result<Self> {
        let (words, _) = bytes.as_chunks::<4>();
        let [magic, length, type_start, type_length, name_start, name_length] =
            [0, 1, 2, 3, 4, 5].map(|index| words.get(index).map_or(0, |word| value(*word)));
        if magic & 0xffff != MAGIC {
            return Err(unknown("it does not begin as type information does"));
        }
        let section = |start: u32, size: u32| {
            let begin = (length + start) as usize;
            bytes.get(begin..begin.saturating_add(size as usize)).ok_or_else(cut_off)
        };
        let (mut rest, _) = section(type_start, type_length)?.as_chunks::<4>();
        let names = section(name_start, name_length)?;
        let mut types = Self {
            names,
            structures: HashMap::new(),
            arrays: HashMap::new(),
            aliases: HashMap::new(),
            by_name: HashMap::new(),
        };
        let mut number = 0;
        while let [name, info, size, after @ ..] = rest {
            number += 1;
            let (info, count) = (value(*info), value(*info) & 0xffff);
            let kind = (info >> 24) & 0x1f;
            let words = words_of(kind, count as usize)?;
            let (members, next) = after.split_at_checked(words).ok_or_else(cut_off)?;
            if kind == STRUCT || kind == UNION {
                let has_bit_fields = info >> 31 != 0;
                let structure = Structure { size: value(*size), has_bit_fields, members };
                types.structures.insert(number, structure);
                if kind == STRUCT {
                    types.by_name.entry(text(names, value(*name))).or_insert(number);
                }
            }
            if let (ARRAY, [_, _, elements]) = (kind, members) {
                types.arrays.insert(number, value(*elements));
            }
            if ALIASES.contains(&kind) {
                types.aliases.insert(number, value(*size));
            }
            rest = next;
        }
        Ok(types)
    }

    fn structure(&self, name: &str) -> io::Result<&Structure<'a>> {
        let number = self.by_name.get(name.as_bytes());
        number
            .and_then(|number| self.structures.get(number))
            .ok_or_else(|| unknown(&format!("there is no structure `{name}`")))
    }

    /// Where a structure has a field, in bytes. Members without a name are looked into; `.` leads into one that has one.
    fn place(&self, structure: &str, field: &str) -> io::Result<u32> {
        let unknown = || unknown(&format!("`{structure}` has no field `{field}`"));
        let mut within = Some(self.structure(structure)?);
        field.split('.').try_fold(0, |place, name| {
            let within_now = within.ok_or_else(unknown)?;
            let (inner, kind) = self.find(within_now, name.as_bytes()).ok_or_else(unknown)?;
            within = self.structures.get(&self.meant_by(kind));
            Ok(place + inner)
        })
    }

    /// The type behind names and qualifiers.
    fn meant_by(&self, mut kind: u32) -> u32 {
        const DEEPEST: usize = 16;
        for _name in 0..DEEPEST {
            match self.aliases.get(&kind) {
                Some(meant) => kind = *meant,
                None => break,
            }
        }
        kind
    }

    /// How many elements a field has that is an array.
    fn elements(&self, structure: &str, field: &str) -> io::Result<u32> {
        let found = self.find(self.structure(structure)?, field.as_bytes());
        let elements = found.and_then(|(_, kind)| self.arrays.get(&kind).copied());
        elements.ok_or_else(|| unknown(&format!("`{structure}` has no array `{field}`")))
    }

    /// Where the field is, and of which type.
    fn find(&self, structure: &Structure<'_>, field: &[u8]) -> Option<(u32, u32)> {
        let (members, _) = structure.members.as_chunks::<3>();
        members.iter().find_map(|[name, kind, place]| {
            let place =
                value(*place) & if structure.has_bit_fields { 0x00ff_ffff } else { u32::MAX };
            let name = text(self.names, value(*name));
            if name == field {
                return Some((place / 8, value(*kind)));
            }
            let inner = self.structures.get(&value(*kind)).filter(|_| name.is_empty())?;
            let (inside, kind) = self.find(inner, field)?;
            Some((place / 8 + inside, kind))
        })
    }
}

/// How many words follow a type of this kind (`enum` in `include/uapi/linux/btf.h`).
fn words_of(kind: u32, count: usize) -> io::Result<usize> {
    Ok(match kind {
        // Integers, variables, and tags of declarations.
        1 | 14 | 17 => 1,
        ARRAY => 3,
        // Structures, unions, sections, enumerations of 64 bits.
        STRUCT | UNION | 15 | 19 => 3 * count,
        // Enumerations, and the signatures of functions.
        6 | 13 => 2 * count,
        // Pointers, names that stand for others, qualifiers, functions, floating point numbers, tags of types.
        2 | 7..=12 | 16 | 18 => 0,
        other => return Err(unknown(&format!("there are types of kind {other}"))),
    })
}

fn value(word: [u8; 4]) -> u32 {
    u32::from_ne_bytes(word)
}

fn text(names: &[u8], start: u32) -> &[u8] {
    let rest = names.get(start as usize..).unwrap_or_default();
    rest.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn unknown(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

fn cut_off() -> io::Error {
    unknown("it is cut off")
}

const MAGIC: u32 = 0xeb9f;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
/// `typedef`, `volatile`, `const`, `restrict`.
const ALIASES: [u32; 4] = [8, 9, 10, 11];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_this_kernel_are_where_they_must_be() {
        let layout = kernel_layout().unwrap();
        // Fixed since the kernel has listeners: a pair of addresses, a hash, the other port, and then ours.
        assert_eq!(layout.sock_port, 14);
        assert_eq!(layout.task_tgid, layout.task_pid + 4);
        assert!(layout.upid_size >= 16 && layout.pid_numbers > layout.pid_level);
        assert!(layout.pid_numbers_declared <= 1);
        // A spinlock, with which the lock begins, has four bytes at least.
        let types = fs::read("/sys/kernel/btf/vmlinux").unwrap();
        let lock = Types::parse(&types).unwrap().place("sock", "sk_lock").unwrap();
        assert!(layout.lock_owned >= lock + 4);
    }

    #[test]
    fn what_is_no_type_information_is_refused() {
        assert!(Types::parse(b"").is_err());
        assert!(Types::parse(&[0; 64]).is_err());
        let whole = fs::read("/sys/kernel/btf/vmlinux").unwrap();
        assert!(Types::parse(&whole[..whole.len() / 2]).is_err());
        let types = Types::parse(&whole).unwrap();
        assert!(types.place("task_struct", "no_such_field").is_err());
        assert!(types.place("no_such_structure", "pid").is_err());
    }
}
