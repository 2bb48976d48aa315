//! Takes the kernel's answers apart. Nothing in here trusts a length that it was given.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use super::{SocketCookie, SocketInode};

/// The address families that TCP runs over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// `AF_INET` or `AF_INET6`.
    pub(super) fn number(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }
}

/// A set of TCP states, as the kernel's `TCPF_*` bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StateSet(u32);

impl StateSet {
    pub(super) const LISTEN: Self = Self(1 << TCP_LISTEN);
    /// The kernel adds `TCPF_NEW_SYN_RECV`, the state of request sockets, by itself.
    pub(super) const SYN_RECV: Self = Self(1 << 3);
    /// All states of a full socket with two ends, but for `SYN_RECV`: 1 `ESTABLISHED`, 2
    /// `SYN_SENT`, 4 `FIN_WAIT1`, 5 `FIN_WAIT2`, 8 `CLOSE_WAIT`, 9 `LAST_ACK`, 11 `CLOSING`.
    pub(super) const CONNECTED: Self =
        Self(1 << 1 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11);

    pub(super) fn bits(self) -> u32 {
        self.0
    }
}

/// One netlink message of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message<'a> {
    /// One socket: `struct inet_diag_msg` and its attributes.
    Socket(&'a [u8]),
    /// The dump is over; the payload's error number, if it has one, is a failure half-way.
    Done(Result<(), ErrorNumber>),
    /// The request was refused.
    Error(Result<(), ErrorNumber>),
    /// Something that no dump of sockets contains.
    Other,
}

/// An error number of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ErrorNumber(i32);

impl From<ErrorNumber> for io::Error {
    fn from(number: ErrorNumber) -> Self {
        Self::from_raw_os_error(number.0)
    }
}

/// A message with the part of `struct nlmsghdr` that matters.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Envelope<'a> {
    pub(super) sequence: u32,
    /// `NLM_F_DUMP_INTR`: the tables changed while they were walked.
    pub(super) interrupted: bool,
    pub(super) message: Message<'a>,
}

/// The messages of one datagram; a message that claims more bytes than there are ends the list.
pub(super) fn envelopes(mut datagram: &[u8]) -> impl Iterator<Item = Envelope<'_>> {
    std::iter::from_fn(move || {
        let header = datagram.get(..NLMSG_HEADER_LENGTH)?;
        let length = usize::try_from(u32_at(header, 0)?).ok()?;
        let payload = datagram.get(NLMSG_HEADER_LENGTH..length)?;
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        let message = match u16_at(header, 4)? {
            // As the request was.
            TCPDIAG_GETSOCK | SOCK_DIAG_BY_FAMILY => Message::Socket(payload),
            NLMSG_DONE => Message::Done(error_number(payload)),
            NLMSG_ERROR => Message::Error(error_number(payload)),
            _ => Message::Other,
        };
        let interrupted = u16_at(header, 6)? & NLM_F_DUMP_INTR != 0;
        Some(Envelope { sequence: u32_at(header, 8)?, interrupted, message })
    })
}

/// A socket as the kernel describes it, before we give it a meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RawSocket {
    pub(super) state: u8,
    /// Which timer runs: [`RawSocket::TIMER_TIME_WAIT`] tells a `TIME_WAIT` socket from a full one.
    pub(super) timer: u8,
    pub(super) local: (IpAddr, u16),
    pub(super) remote: (IpAddr, u16),
    pub(super) interface: u32,
    pub(super) cookie: SocketCookie,
    pub(super) receive_queue: u32,
    pub(super) send_queue: u32,
    pub(super) uid: u32,
    /// 0 if no descriptor refers to the socket.
    pub(super) inode: SocketInode,
    pub(super) v6only: bool,
    /// Whether Multipath TCP has taken the socket over as one of its subflows.
    pub(super) multipath_subflow: bool,
    /// How long nothing was sent nor received; present if `tcp_info` was asked for.
    pub(super) idle: Option<Duration>,
    /// The value of the socket storage that was asked for, if the socket has one.
    pub(super) tag: Option<Vec<u8>>,
}

impl RawSocket {
    /// A `TIME_WAIT` socket may report the state `FIN_WAIT2` that it stands for
    /// (`inet_twsk_diag_fill`); only its timer tells that it is no full socket.
    pub(super) const TIMER_TIME_WAIT: u8 = 3;

    /// The length of `struct inet_diag_msg`.
    pub(super) const LENGTH: usize = 72;

    /// Reads `struct inet_diag_msg` and the attributes behind it; nothing if it is too short or of
    /// another family.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut socket = Self {
            state: *bytes.get(1)?,
            timer: *bytes.get(2)?,
            local: (address_at(bytes, 8)?, u16_be_at(bytes, 4)?),
            remote: (address_at(bytes, 24)?, u16_be_at(bytes, 6)?),
            interface: u32_at(bytes, 40)?,
            cookie: SocketCookie(
                u64::from(u32_at(bytes, 44)?) | u64::from(u32_at(bytes, 48)?) << 32,
            ),
            receive_queue: u32_at(bytes, 56)?,
            send_queue: u32_at(bytes, 60)?,
            uid: u32_at(bytes, 64)?,
            inode: SocketInode(u64::from(u32_at(bytes, 68)?)),
            v6only: false,
            multipath_subflow: false,
            idle: None,
            tag: None,
        };
        for (kind, payload) in attributes(bytes.get(Self::LENGTH..)?) {
            match kind {
                INET_DIAG_INFO => socket.idle = idle(payload),
                INET_DIAG_SKV6ONLY => socket.v6only = payload.first() == Some(&1),
                INET_DIAG_ULP_INFO => socket.multipath_subflow = is_multipath(payload),
                INET_DIAG_SK_BPF_STORAGES => socket.tag = storage_value(payload),
                _ => {}
            }
        }
        Some(socket)
    }
}

/// The attributes in `bytes`, without the flag bits of their kinds; stops at the first that does
/// not fit.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & NLA_TYPE_MASK;
        let payload = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, payload))
    })
}

/// The shorter of the two times since data went either way, from `struct tcp_info`.
///
/// Both clocks of a socket that never sent or received start when it is created, so neither is ever
/// meaningless.
fn idle(tcp_info: &[u8]) -> Option<Duration> {
    let sent = u32_at(tcp_info, TCPI_LAST_DATA_SENT)?;
    let received = u32_at(tcp_info, TCPI_LAST_DATA_RECV)?;
    Some(Duration::from_millis(u64::from(sent.min(received))))
}

fn is_multipath(ulp_info: &[u8]) -> bool {
    attributes(ulp_info).any(|(kind, name)| {
        kind == INET_ULP_INFO_NAME && name.strip_suffix(b"\0") == Some(b"mptcp")
    })
}

/// The value in `INET_DIAG_SK_BPF_STORAGES`: one storage per map asked for, and we ask for one.
fn storage_value(storages: &[u8]) -> Option<Vec<u8>> {
    let (_, storage) = attributes(storages).find(|(kind, _)| *kind == SK_DIAG_BPF_STORAGE)?;
    let (_, value) =
        attributes(storage).find(|(kind, _)| *kind == SK_DIAG_BPF_STORAGE_MAP_VALUE)?;
    Some(value.to_vec())
}

/// The leading `int` of `NLMSG_ERROR` and `NLMSG_DONE`: 0 or a negated error number.
fn error_number(payload: &[u8]) -> Result<(), ErrorNumber> {
    match u32_at(payload, 0).map(u32::cast_signed) {
        Some(number) if number < 0 => Err(ErrorNumber(number.saturating_neg())),
        Some(_) | None => Ok(()),
    }
}

/// The address at `offset`, by the family in the message's first byte. IPv4 in IPv6 becomes IPv4:
/// that is what it is on the wire, and what every other word of the agent calls it.
fn address_at(bytes: &[u8], offset: usize) -> Option<IpAddr> {
    let field: [u8; 16] = *bytes.get(offset..)?.first_chunk()?;
    match *bytes.first()? {
        2 => Some(IpAddr::V4(Ipv4Addr::from(*field.first_chunk()?))),
        10 => Some(IpAddr::V6(Ipv6Addr::from(field)).to_canonical()),
        _ => None,
    }
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..)?.first_chunk().map(|chunk| u16::from_ne_bytes(*chunk))
}

fn u16_be_at(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..)?.first_chunk().map(|chunk| u16::from_be_bytes(*chunk))
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().map(|chunk| u32::from_ne_bytes(*chunk))
}

/// The length of `struct nlmsghdr`.
pub(super) const NLMSG_HEADER_LENGTH: usize = 16;

/// `TCP_LISTEN`.
const TCP_LISTEN: u32 = 10;

/// Asks for TCP sockets, of any family.
pub(super) const TCPDIAG_GETSOCK: u16 = 18;
/// Asks for sockets of one family.
pub(super) const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLA_TYPE_MASK: u16 = 0x3fff;
const INET_DIAG_INFO: u16 = 2;
const INET_DIAG_SKV6ONLY: u16 = 11;
const INET_DIAG_ULP_INFO: u16 = 19;
const INET_DIAG_SK_BPF_STORAGES: u16 = 20;
const INET_ULP_INFO_NAME: u16 = 1;
const SK_DIAG_BPF_STORAGE: u16 = 1;
const SK_DIAG_BPF_STORAGE_MAP_VALUE: u16 = 3;
/// Offsets in `struct tcp_info`.
const TCPI_LAST_DATA_SENT: usize = 44;
const TCPI_LAST_DATA_RECV: usize = 52;

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// `kind`, `payload` as an attribute.
    fn attribute(kind: u16, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + payload.len()).unwrap();
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend_from_slice(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn netlink(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(16 + payload.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(&5_u32.to_ne_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    /// A socket with every attribute that we read, and the end.
    pub(in super::super) fn everything() -> Vec<u8> {
        let mut datagram = netlink(SOCK_DIAG_BY_FAMILY, 0, &socket());
        datagram.extend(netlink(NLMSG_DONE, 0, &[0; 4]));
        for message in [0, datagram.len() - 20] {
            datagram[message + 8..message + 12].copy_from_slice(&1_u32.to_ne_bytes());
        }
        datagram
    }

    /// An IPv6 listener of a dual-stack address, with every attribute that we read.
    fn socket() -> Vec<u8> {
        let mut bytes = vec![0; RawSocket::LENGTH];
        bytes[0] = 10;
        bytes[1] = 1;
        bytes[4..6].copy_from_slice(&8080_u16.to_be_bytes());
        bytes[6..8].copy_from_slice(&40000_u16.to_be_bytes());
        bytes[18..24].copy_from_slice(&[0xff, 0xff, 127, 0, 0, 1]);
        bytes[39] = 1;
        bytes[44..48].copy_from_slice(&7_u32.to_ne_bytes());
        bytes[48..52].copy_from_slice(&1_u32.to_ne_bytes());
        bytes[68..72].copy_from_slice(&99_u32.to_ne_bytes());
        let mut info = [0; 104];
        info[44..48].copy_from_slice(&700_u32.to_ne_bytes());
        info[52..56].copy_from_slice(&300_u32.to_ne_bytes());
        bytes.extend(attribute(INET_DIAG_INFO, &info));
        bytes.extend(attribute(INET_DIAG_SKV6ONLY, &[1]));
        bytes.extend(attribute(INET_DIAG_ULP_INFO, &attribute(INET_ULP_INFO_NAME, b"mptcp\0")));
        let storage = [
            attribute(2, &4_u32.to_ne_bytes()),
            attribute(SK_DIAG_BPF_STORAGE_MAP_VALUE, b"tag value"),
        ];
        let storages = attribute(SK_DIAG_BPF_STORAGE | 0x8000, &storage.concat());
        bytes.extend(attribute(INET_DIAG_SK_BPF_STORAGES | 0x8000, &storages));
        bytes
    }

    #[test]
    fn every_field_of_a_socket_is_read() {
        let socket = RawSocket::parse(&socket()).unwrap();
        assert_eq!(socket.local, (IpAddr::from([127, 0, 0, 1]), 8080));
        assert_eq!(socket.remote, (IpAddr::from(Ipv6Addr::LOCALHOST), 40000));
        assert_eq!(socket.cookie, SocketCookie(1 << 32 | 7));
        assert_eq!(socket.inode, SocketInode(99));
        assert_eq!(socket.idle, Some(Duration::from_millis(300)));
        assert!(socket.v6only);
        assert!(socket.multipath_subflow);
        assert_eq!(socket.tag.as_deref(), Some(b"tag value".as_slice()));
    }

    #[test]
    fn a_truncated_socket_is_refused_and_truncated_attributes_are_dropped() {
        let whole = socket();
        for length in 0..RawSocket::LENGTH {
            assert_eq!(RawSocket::parse(&whole[..length]), None);
        }
        for length in RawSocket::LENGTH..whole.len() {
            assert!(RawSocket::parse(&whole[..length]).unwrap().tag.is_none());
        }
    }

    #[test]
    fn an_unknown_family_is_refused() {
        let mut bytes = socket();
        bytes[0] = 1;
        assert_eq!(RawSocket::parse(&bytes), None);
    }

    #[test]
    fn errors_and_the_end_are_told_apart_from_sockets() {
        let refused = (-1_i32).to_ne_bytes();
        let datagram = [
            netlink(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP_INTR, b"socket"),
            netlink(NLMSG_ERROR, 0, &refused),
            netlink(NLMSG_DONE, 0, &[0; 4]),
            netlink(77, 0, &[]),
        ]
        .concat();
        let all: Vec<_> = envelopes(&datagram).collect();
        assert_eq!(
            all[0],
            Envelope { sequence: 5, interrupted: true, message: Message::Socket(b"socket") }
        );
        assert_eq!(all[1].message, Message::Error(Err(ErrorNumber(1))));
        assert_eq!(all[2].message, Message::Done(Ok(())));
        assert_eq!(all[3].message, Message::Other);
        assert_eq!(all.len(), 4);
    }

    #[test]
    fn a_message_that_claims_too_much_or_nothing_ends_the_list() {
        for claimed in [0_u32, 15, 17, u32::MAX] {
            let mut datagram = netlink(NLMSG_DONE, 0, &[]);
            datagram[0..4].copy_from_slice(&claimed.to_ne_bytes());
            assert_eq!(envelopes(&datagram).count(), 0, "claimed {claimed}");
        }
    }
}
