//! The texts below `/proc`: our own and those of things that we make, changed; and the words that a process puts into them.

use std::{
    fs,
    net::{TcpListener, UdpSocket},
    os::{fd::AsRawFd as _, unix::net::UnixListener},
};

use proptest::strategy::{Strategy, Union};
use rustix::event::epoll;

use super::{
    accepting, bpf_links,
    cgroup::hierarchy,
    confinement::{groups, loss},
    context, doors,
    holders::socket_inode,
    io_uring, limit, mounts,
    process::texts::{parse_stat, parse_status, words},
    sock_diag::SocketInode,
    supervisor::{self, Kind},
    syn_cookies, unix_sockets,
};
use crate::fuzzing::{
    Verdict, fuzz,
    mutate::{Bytes, mutated},
};

/// What a text is read by: says whether it found what it looks for.
type Parse = fn(&[u8]) -> bool;

fn lines(text: &[u8], parse: impl Fn(&str) -> bool) -> bool {
    String::from_utf8_lossy(text).lines().filter(|line| parse(line)).count() > 0
}

/// Each text, the words of its format, and who reads it.
const TEXTS: [(&str, &[&str], Parse); 15] = [
    ("stat", &[") ", "(", " R "], |text| parse_stat(text).is_ok()),
    ("status", &["\nName:\t", "\nGroups:\t", ":"], |text| {
        let _: Option<u32> = loss::counted_filters(text);
        parse_status(text).is_ok()
    }),
    ("limits", &["unlimited", "Max open files"], |text| {
        lines(text, |line| limit::parse(line).is_some())
    }),
    ("cgroup", &["0::", "1:cpu,cpuacct:/", " (deleted)", "/../"], |text| {
        let _: usize = groups::memberships(text).count();
        hierarchy::membership(text).is_some()
    }),
    ("mountinfo", &[" - ", "\\040", "\\777", "\\1", "cgroup2"], |text| {
        let found =
            text.split(|byte| *byte == b'\n').filter_map(|line| mounts::parse(line, "proc"));
        found.count() > 0
    }),
    ("environ", &["=", "\0=", "\0\0"], |text| context::variables(text).is_some()),
    ("cmdline", &["\0", "supervisord", "PM2 v"], |text| {
        let _: Option<&Kind> = Kind::by_words(&words(text));
        let _: bool = supervisor::wants_up(text);
        let words = words(text);
        assert!(words.iter().map(|word| word.as_bytes().len()).sum::<usize>() <= text.len());
        !words.is_empty()
    }),
    ("net/unix", &["01", "@", " /run/a"], |text| unix_sockets::sockets(text).count() > 0),
    ("net/udp", &[":0035", "0100007F"], |text| doors::entries(text).is_ok()),
    ("net/udp6", &[":0035", "00000000"], |text| doors::entries(text).is_ok()),
    ("net/netstat", &["TcpExt:", "SyncookiesSent"], |text| {
        syn_cookies::counter(&String::from_utf8_lossy(text), "TcpExt:", "SyncookiesSent").is_some()
    }),
    ("task/self/syscall", &["288 ", "0x", "running", "-1"], |text| {
        accepting::accepted_from(&String::from_utf8_lossy(text)).is_some()
    }),
    ("fdinfo/epoll", &["tfd:", "ino:", "ffffffffffffffff"], |text| {
        lines(text, |line| accepting::watched(line).is_some())
    }),
    ("fdinfo/ring", &["UserFiles:", "socket:[", "]", ": "], |text| {
        io_uring::sockets(text).is_some_and(|found| !found.is_empty())
    }),
    ("fdinfo/link", &["prog_id:\t"], |text| {
        bpf_links::program_of(&String::from_utf8_lossy(text)).is_some()
    }),
];

/// As the kernel shows it of us; what we have none of is as it was seen once.
fn example(text: &str) -> Vec<u8> {
    match text {
        "fdinfo/ring" => {
            b"pos:\t0\nUserFiles:\t2\n    0: socket:[94576]\n    1: /tmp/a\nUserBufs:\t0\n".to_vec()
        }
        "fdinfo/link" => b"pos:\t0\nlink_type:\tnetns\nprog_id:\t42\nnetns_ino:\t1\n".to_vec(),
        "task/self/syscall" => b"288 0x3 0x7ffd1 0x7ffd2 0x80000 0x0 0x0 0x7ffd0 0x7f10\n".to_vec(),
        "fdinfo/epoll" => {
            let socket = TcpListener::bind("127.0.0.1:0").unwrap();
            let set = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
            let data = epoll::EventData::new_u64(0);
            epoll::add(&set, &socket, data, epoll::EventFlags::IN).unwrap();
            fs::read(format!("/proc/self/fdinfo/{}", set.as_raw_fd())).unwrap()
        }
        text => fs::read(format!("/proc/self/{text}")).unwrap(),
    }
}

/// Of a table with thousands of lines a few are as good.
fn beginning(mut text: Vec<u8>) -> Vec<u8> {
    text.truncate(8192);
    text
}

#[test]
fn no_text_breaks_who_reads_it() {
    let directory = tempfile::tempdir().unwrap();
    let _unix = UnixListener::bind(directory.path().join("a name")).unwrap();
    let _udp = ["127.0.0.1:0", "[::1]:0"].map(|it| UdpSocket::bind(it).unwrap());
    let texts = TEXTS.iter().enumerate().map(|(which, (text, words, _))| {
        let texts = mutated(vec![beginning(example(text))], words);
        texts.prop_map(move |text| (which, text)).boxed()
    });
    fuzz("proc_texts", &Union::new(texts), |(which, text)| match TEXTS[*which].2(text.as_ref()) {
        true => Verdict::Taken,
        false => Verdict::Refused,
    });
}

/// What a process calls itself, what it is bound to, and where its group is, in texts that are otherwise the kernel's.
#[test]
fn no_words_of_a_process_change_what_the_kernel_says_of_it() {
    let [stat, status] = ["stat", "status"].map(example);
    let (real_stat, real_status) = (parse_stat(&stat).unwrap(), parse_status(&status).unwrap());
    let judge = |words: &Bytes| {
        let words: Vec<_> = words.as_ref().iter().copied().filter(|byte| *byte != 0).collect();
        // The kernel keeps 15 bytes of a name; in one of the two texts it writes line ends and backslashes otherwise.
        let name = &words[..words.len().min(15)];
        let stat = named(&stat, b"(", b") ", name);
        let escaped = name.iter().flat_map(|byte| match byte {
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            byte => std::slice::from_ref(byte),
        });
        let escaped: Vec<_> = escaped.copied().collect();
        let status = named(&status, b"Name:\t", b"\n", &escaped);
        let (stat, status) = (parse_stat(&stat).unwrap(), parse_status(&status).unwrap());
        assert_eq!((stat.ppid, stat.starttime), (real_stat.ppid, real_stat.starttime));
        assert_eq!((status.euid, status.capbnd), (real_status.euid, real_status.capbnd));

        // An address has 107 bytes at most, and a path ends at its first zero byte.
        let address = &words[..words.len().min(107)];
        let table = [UNIX_BEFORE, address, UNIX_BEHIND].concat();
        let behind = unix_sockets::sockets(&table).find(|it| it.inode == SocketInode(94577));
        assert!(behind.is_some_and(|it| it.path() == Some("/run/other".as_ref())));

        let path: Vec<_> = words.iter().copied().filter(|byte| *byte != b'\n').collect();
        let table = [b"1:cpu:/", &path[..], b"\n0::/", &path, b"\n"].concat();
        let is_whole = |it: &std::path::Path| it.as_os_str().len() == path.len() + 1;
        assert!(hierarchy::membership(&table).is_some_and(is_whole));
        assert!(groups::memberships(&table).all(|(name, it)| name == "cpu" && is_whole(it)));
        assert_eq!(socket_inode(std::path::Path::new("socket:[7]")), Some(SocketInode(7)));
        Verdict::Taken
    };
    let names = ["nginx", "a) R 1 (b", "x\ny: z", "\\n"].map(|it| it.as_bytes().to_vec()).to_vec();
    let words = [
        ") ",
        "(",
        "\n",
        ":",
        "\nUid:\t0",
        "0000000000000000: 00000002 00000000 00010000 0001 01 1 /a",
    ];
    fuzz("proc_words", &mutated(names, &words), judge);
}

const UNIX_BEFORE: &[u8] = b"Num       RefCount Protocol Flags    Type St Inode Path\n\
    0000000000000000: 00000002 00000000 00010000 0001 01    17 ";
const UNIX_BEHIND: &[u8] =
    b"\n0000000000000000: 00000002 00000000 00010000 0001 01 94577 /run/other\n";

/// A text with another name between the first of `before` and the last of `behind` that follows in the same line.
fn named(text: &[u8], before: &[u8], behind: &[u8], name: &[u8]) -> Vec<u8> {
    let find = |text: &[u8], part: &[u8]| text.windows(part.len()).position(|it| it == part);
    let begin = find(text, before).unwrap() + before.len();
    let end = begin + find(&text[begin..], behind).unwrap();
    [&text[..begin], name, &text[end..]].concat()
}
