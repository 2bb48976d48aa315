//! What is behind a pin, whatever somebody may have put there.
//!
//! The kernel answers the same question about a map, a program and a link with structures that look alike
//! (`BPF_OBJ_GET_INFO_BY_FD`): which of them it is has to be known before. What it shows of a descriptor in `/proc` names the
//! kind, and says where a link is attached.

use std::{
    fs, io,
    os::{
        fd::AsRawFd as _,
        unix::fs::{MetadataExt as _, PermissionsExt as _},
    },
    path::Path,
};

use crate::sys::bpf;

/// What was found behind a pin of ours alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Behind {
    /// A map.
    Map {
        /// Its number in the kernel.
        id: u32,
        /// What it can hold.
        shape: Shape,
    },
    /// A program that is not attached by it.
    Program,
    /// What keeps a program attached.
    Link(Link),
}

/// What a map can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// `enum bpf_map_type`.
    pub(super) kind: u32,
    pub(super) key_size: u32,
    pub(super) value_size: u32,
    pub(super) max_entries: u32,
    pub(super) flags: u32,
}

/// An attachment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    /// The number of the program.
    pub(super) program: u32,
    pub(super) attachment: Attachment,
}

/// What a program is attached to. A number is zero where that is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Attachment {
    Network { namespace: u64, hook: u32 },
    Cgroup { cgroup: u64, hook: u32 },
    Tracepoint { name: String },
    Other,
}

/// Why a path is no pin that we could use.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error("is gone")]
    Gone,
    #[error("is no pin")]
    NoPin,
    #[error("is no directory")]
    NoDirectory,
    #[error("belongs to uid {0}")]
    Foreign(u32),
    #[error("can be used by others (mode {0:o})")]
    Open(u32),
    #[error("cannot be opened ({0})")]
    Closed(io::Error),
}

/// Looks at the object behind a pin. A symbolic link is not followed: it would be somebody else's pin.
pub(super) fn behind(pin: &Path) -> Result<Behind, Unusable> {
    let known = of_ours(pin)?;
    if !known.is_file() {
        return Err(Unusable::NoPin);
    }
    let object = bpf::open_pinned(pin).map_err(Unusable::Closed)?;
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", object.as_raw_fd()));
    parse(&text.map_err(Unusable::Closed)?).ok_or(Unusable::NoPin)
}

/// Looks at a directory that only we may change.
pub(super) fn directory(path: &Path) -> Result<(), Unusable> {
    if of_ours(path)?.is_dir() { Ok(()) } else { Err(Unusable::NoDirectory) }
}

/// What is at a path, if it is there and only for us.
fn of_ours(path: &Path) -> Result<fs::Metadata, Unusable> {
    const OTHERS: u32 = 0o077;
    let known = fs::symlink_metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Unusable::Gone,
        _ => Unusable::Closed(error),
    })?;
    let mode = known.permissions().mode() & 0o7777;
    // Whoever may is of no meaning for a symbolic link.
    if known.is_symlink() {
        return Ok(known);
    }
    if known.uid() != rustix::process::geteuid().as_raw() {
        return Err(Unusable::Foreign(known.uid()));
    }
    if mode & OTHERS != 0 {
        return Err(Unusable::Open(mode));
    }
    Ok(known)
}

/// `bpf_map_show_fdinfo`, `bpf_prog_show_fdinfo`, `bpf_link_show_fdinfo` and that of each kind of link.
fn parse(text: &str) -> Option<Behind> {
    let word = |name: &str| {
        let of_name =
            |line: &str| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim().to_owned());
        text.lines().find_map(of_name)
    };
    let number = |name: &str| word(name)?.parse::<u64>().ok();
    let short = |name: &str| u32::try_from(number(name)?).ok();
    if let Some(kind) = short("map_type") {
        let flags = word("map_flags")?;
        let shape = Shape {
            kind,
            key_size: short("key_size")?,
            value_size: short("value_size")?,
            max_entries: short("max_entries")?,
            flags: u32::from_str_radix(flags.trim_start_matches("0x"), 16).ok()?,
        };
        return Some(Behind::Map { id: short("map_id")?, shape });
    }
    let Some(kind) = word("link_type") else {
        return word("prog_type").map(|_| Behind::Program);
    };
    let attachment = match kind.as_str() {
        "netns" => {
            Attachment::Network { namespace: number("netns_ino")?, hook: short("attach_type")? }
        }
        "cgroup" => {
            Attachment::Cgroup { cgroup: number("cgroup_id")?, hook: short("attach_type")? }
        }
        "raw_tracepoint" => Attachment::Tracepoint { name: word("tp_name")? },
        _ => Attachment::Other,
    };
    Some(Behind::Link(Link { program: short("prog_id")?, attachment }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::{super::directories::make_directory, *};

    #[test]
    fn each_kind_of_object_is_told_from_the_others() {
        let map = "pos:\t0\nflags:\t02000002\nmap_type:\t1\nkey_size:\t4\nvalue_size:\t8\nmax_entries:\t16\nmap_flags:\t0x1\n\
                   map_extra:\t0x0\nmemlock:\t1\nmap_id:\t7\nfrozen:\t0\n";
        let shape = Shape { kind: 1, key_size: 4, value_size: 8, max_entries: 16, flags: 1 };
        assert_eq!(parse(map), Some(Behind::Map { id: 7, shape }));
        let program = "pos:\t0\nprog_type:\t30\nprog_jited:\t1\nprog_tag:\t00\nprog_id:\t9\n";
        assert_eq!(parse(program), Some(Behind::Program));
        let link = |text: &str| match parse(text) {
            Some(Behind::Link(link)) => link,
            other => panic!("{other:?}"),
        };
        let network = "link_type:\tnetns\nlink_id:\t3\nprog_tag:\t00\nprog_id:\t9\nnetns_ino:\t4026531840\nattach_type:\t36\n";
        let attachment = Attachment::Network { namespace: 4_026_531_840, hook: 36 };
        assert_eq!(link(network), Link { program: 9, attachment });
        let cgroup =
            "link_type:\tcgroup\nlink_id:\t3\nprog_id:\t9\ncgroup_id:\t0\nattach_type:\t8\n";
        assert_eq!(link(cgroup).attachment, Attachment::Cgroup { cgroup: 0, hook: 8 });
        let tracing =
            "link_type:\traw_tracepoint\nlink_id:\t3\nprog_id:\t9\ntp_name:\tsched_process_fork\n";
        let name = "sched_process_fork".to_owned();
        assert_eq!(link(tracing).attachment, Attachment::Tracepoint { name });
        assert_eq!(link("link_type:\txdp\nprog_id:\t9\n").attachment, Attachment::Other);
        assert_eq!(parse("pos:\t0\nflags:\t0\n"), None);
    }

    #[test]
    fn what_is_no_pin_or_not_ours_alone_is_unusable() {
        let root = tempfile::tempdir().unwrap();
        let [file, link, below] = ["file", "link", "below"].map(|name| root.path().join(name));
        make_directory(&below).unwrap();
        fs::write(&file, "").unwrap();
        symlink(&file, &link).unwrap();
        let allow = |mode| fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        allow(0o600);
        assert!(matches!(behind(&file), Err(Unusable::Closed(_) | Unusable::NoPin)));
        allow(0o640);
        assert!(matches!(behind(&file), Err(Unusable::Open(0o640))));
        assert!(matches!(behind(&link), Err(Unusable::NoPin)));
        assert!(matches!(behind(&below), Err(Unusable::NoPin)));
        assert!(matches!(behind(&file.join("below")), Err(Unusable::Gone)));
        assert!(matches!(directory(&link), Err(Unusable::NoDirectory)));
        assert!(directory(&below).is_ok());
    }
}
