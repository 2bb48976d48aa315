//! Builds the netlink message that asks for a dump.

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd, BorrowedFd},
};

use super::wire::{Family, NLMSG_HEADER_LENGTH, SOCK_DIAG_BY_FAMILY, StateSet, TCPDIAG_GETSOCK};

/// One question to the kernel: which sockets, and what about them.
#[derive(Debug, Clone)]
pub(super) struct Request<'a> {
    /// What is asked for, in words, for errors.
    pub(super) what: &'static str,
    pub(super) protocol: Protocol,
    pub(super) states: StateSet,
    /// Only sockets of these local ports; the kernel filters.
    pub(super) ports: Ports,
    /// Whether `struct tcp_info` is wanted.
    pub(super) with_tcp_info: bool,
    /// The socket storage whose value is wanted with each socket.
    pub(super) tags: Option<BorrowedFd<'a>>,
}

/// Local ports that the kernel can filter by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ports {
    All,
    One(u16),
    /// The first and the last one of each, in order.
    Ranges(Vec<(u16, u16)>),
}

impl Ports {
    /// Few ranges that have all of these, and little else; nothing if there are no ports. One walk over the kernel's table is
    /// worth more than a filter that lets none but these pass: the table of a machine has some hundred thousand places. But
    /// between a port that everybody knows and one that the kernel chose lie those of the machine's own clients.
    pub(super) fn of(ports: &[u16]) -> Option<Self> {
        let mut sorted = ports.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let mut gaps: Vec<_> = sorted.windows(2).map(|pair| (pair[1] - pair[0], pair[1])).collect();
        gaps.retain(|(width, _)| *width > 1);
        gaps.sort_unstable_by(|one, other| other.cmp(one));
        gaps.truncate(MAX_RANGES - 1);
        let begins_range = |port: &u16| gaps.iter().any(|(_, first)| first == port);
        let ranges = sorted.chunk_by(|_, port| !begins_range(port));
        let ranges: Vec<_> =
            ranges.filter_map(|range| Some((*range.first()?, *range.last()?))).collect();
        match ranges[..] {
            [] => None,
            [(first, last)] if first == last => Some(Self::One(first)),
            _ => Some(Self::Ranges(ranges)),
        }
    }

    /// A program for the kernel (`inet_diag_bc_run`) that a socket passes by reaching its end. Each range is two comparisons,
    /// each followed by what it compares with, and a jump to the end, which the last range needs not. A comparison that fails
    /// jumps to the next range; behind the last one that is behind the end.
    fn program(&self) -> Option<Vec<u8>> {
        const COMPARISON: u8 = 8;
        const JUMP: u8 = 4;
        const RANGE: u8 = 2 * COMPARISON + JUMP;
        let Self::Ranges(ranges) = self else { return None };
        let mut program = Vec::new();
        let mut put = |code: u8, yes: u8, no: u16| {
            program.extend([code, yes]);
            program.extend(no.to_ne_bytes());
        };
        for (left, (first, last)) in (0..ranges.len()).rev().zip(ranges) {
            put(INET_DIAG_BC_S_GE, COMPARISON, RANGE.into());
            put(INET_DIAG_BC_NOP, COMPARISON, *first);
            put(INET_DIAG_BC_S_LE, COMPARISON, (COMPARISON + JUMP).into());
            put(INET_DIAG_BC_NOP, COMPARISON, *last);
            if left > 0 {
                let to_the_end = left as u16 * u16::from(RANGE);
                put(INET_DIAG_BC_JMP, JUMP, to_the_end);
            }
        }
        Some(program)
    }
}

/// How many ranges the kernel compares each socket with, at most.
const MAX_RANGES: usize = 16;

/// Which of the protocols that share TCP's ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// Over IPv4 and IPv6.
    Tcp,
    /// Over one of them.
    MultipathTcp(Family),
}

impl Request<'_> {
    /// The whole message, ready to be sent.
    ///
    /// # Kernel
    ///
    /// The newer request (`SOCK_DIAG_BY_FAMILY`) is answered for one family at a time, each with a walk over the whole table:
    /// 25 ms beside 100,000 connections. The older one is for TCP alone and leaves the family open
    /// (`inet_diag_dump_compat`); both take the same attributes.
    pub(super) fn encode(&self, sequence: u32) -> Vec<u8> {
        let mut message = vec![0; NLMSG_HEADER_LENGTH];
        let kind = match self.protocol {
            Protocol::Tcp => {
                self.put_inet_diag_req(&mut message);
                TCPDIAG_GETSOCK
            }
            Protocol::MultipathTcp(family) => {
                self.put_inet_diag_req_v2(&mut message, family);
                // The header's protocol field has 8 bits, and 262 does not fit.
                put_attribute(&mut message, INET_DIAG_REQ_PROTOCOL, &IPPROTO_MPTCP.to_ne_bytes());
                SOCK_DIAG_BY_FAMILY
            }
        };
        if let Some(program) = self.ports.program() {
            put_attribute(&mut message, INET_DIAG_REQ_BYTECODE, &program);
        }
        if let Some(map) = self.tags {
            let mut nested = Vec::new();
            put_attribute(
                &mut nested,
                SK_DIAG_BPF_STORAGE_REQ_MAP_FD,
                &map.as_raw_fd().to_ne_bytes(),
            );
            put_attribute(&mut message, INET_DIAG_REQ_SK_BPF_STORAGES | NLA_F_NESTED, &nested);
        }
        put_header(&mut message, kind, NLM_F_REQUEST | NLM_F_DUMP, sequence);
        message
    }

    /// `struct inet_diag_req`.
    fn put_inet_diag_req(&self, message: &mut Vec<u8>) {
        message.extend_from_slice(&[0, 0, 0, self.extensions()]);
        self.put_inet_diag_sockid(message);
        message.extend_from_slice(&self.states.bits().to_ne_bytes());
        message.extend_from_slice(&[0; 4]);
    }

    /// `struct inet_diag_req_v2`.
    fn put_inet_diag_req_v2(&self, message: &mut Vec<u8>, family: Family) {
        message.extend_from_slice(&[family.number(), IPPROTO_TCP, self.extensions(), 0]);
        message.extend_from_slice(&self.states.bits().to_ne_bytes());
        self.put_inet_diag_sockid(message);
    }

    const fn extensions(&self) -> u8 {
        if self.with_tcp_info { 1 << (INET_DIAG_INFO - 1) } else { 0 }
    }

    /// `struct inet_diag_sockid`: ports in network byte order, then what a dump does not filter by.
    fn put_inet_diag_sockid(&self, message: &mut Vec<u8>) {
        let port = if let Ports::One(port) = self.ports { port } else { 0 };
        message.extend_from_slice(&port.to_be_bytes());
        message.extend_from_slice(&[0; 2 + 16 + 16 + 4]);
        message.extend_from_slice(&[0xff; 8]); // INET_DIAG_NOCOOKIE
    }
}

/// The message that asks for the one TCP socket with these two ends (`inet_diag_find_one_icsk`): nothing is walked.
pub(super) fn encode_exact(local: SocketAddr, remote: SocketAddr, sequence: u32) -> Vec<u8> {
    let family = if local.is_ipv4() { Family::V4 } else { Family::V6 };
    let mut message = vec![0; NLMSG_HEADER_LENGTH];
    message.extend_from_slice(&[family.number(), IPPROTO_TCP, 0, 0]);
    message.extend_from_slice(&StateSet::CONNECTED.bits().to_ne_bytes());
    message.extend_from_slice(&local.port().to_be_bytes());
    message.extend_from_slice(&remote.port().to_be_bytes());
    for end in [local, remote] {
        let mut address = [0; 16];
        match end.ip() {
            IpAddr::V4(ip) => address[..4].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => address.copy_from_slice(&ip.octets()),
        }
        message.extend_from_slice(&address);
    }
    message.extend_from_slice(&[0; 4]);
    message.extend_from_slice(&[0xff; 8]); // INET_DIAG_NOCOOKIE
    put_header(&mut message, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, sequence);
    message
}

/// Fills in `struct nlmsghdr`, once the length is known.
fn put_header(message: &mut [u8], kind: u16, flags: u16, sequence: u32) {
    let length = u32::try_from(message.len()).expect("a request has some hundred bytes");
    message[0..4].copy_from_slice(&length.to_ne_bytes());
    message[4..6].copy_from_slice(&kind.to_ne_bytes());
    message[6..8].copy_from_slice(&flags.to_ne_bytes());
    message[8..12].copy_from_slice(&sequence.to_ne_bytes());
}

/// Appends `struct nlattr` and its payload, padded to four bytes.
fn put_attribute(message: &mut Vec<u8>, kind: u16, payload: &[u8]) {
    let length =
        u16::try_from(4 + payload.len()).expect("a request's attributes have some ten bytes");
    message.extend_from_slice(&length.to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(payload);
    message.resize(message.len().next_multiple_of(4), 0);
}

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_DUMP: u16 = 0x300;
const NLA_F_NESTED: u16 = 0x8000;
const INET_DIAG_INFO: u8 = 2;
const INET_DIAG_REQ_BYTECODE: u16 = 1;
const INET_DIAG_REQ_SK_BPF_STORAGES: u16 = 2;
const INET_DIAG_REQ_PROTOCOL: u16 = 3;
const SK_DIAG_BPF_STORAGE_REQ_MAP_FD: u16 = 1;
const INET_DIAG_BC_NOP: u8 = 0;
const INET_DIAG_BC_JMP: u8 = 1;
const INET_DIAG_BC_S_GE: u8 = 2;
const INET_DIAG_BC_S_LE: u8 = 3;
const IPPROTO_TCP: u8 = 6;
const IPPROTO_MPTCP: u32 = 262;

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn request() -> Request<'static> {
        Request {
            what: "listeners",
            protocol: Protocol::Tcp,
            states: StateSet::LISTEN,
            ports: Ports::All,
            with_tcp_info: false,
            tags: None,
        }
    }

    #[test]
    fn a_plain_request_is_the_header_and_one_struct() {
        let message = request().encode(7);
        assert_eq!(message.len(), 16 + 60);
        assert_eq!(message[0..4], 76_u32.to_ne_bytes());
        assert_eq!(message[4..6], 18_u16.to_ne_bytes());
        assert_eq!(message[8..12], 7_u32.to_ne_bytes());
        assert_eq!(message[16..20], [0, 0, 0, 0]);
        assert_eq!(message[68..72], (1_u32 << 10).to_ne_bytes());
    }

    #[test]
    fn the_port_travels_in_network_byte_order() {
        let message =
            Request { ports: Ports::One(0x1f90), with_tcp_info: true, ..request() }.encode(1);
        assert_eq!(message[20..22], [0x1f, 0x90]);
        assert_eq!(message[19], 1 << 1);
    }

    #[test]
    fn ports_that_are_neighbours_are_one_range() {
        assert_eq!(Ports::of(&[]), None);
        assert_eq!(Ports::of(&[80, 80]), Some(Ports::One(80)));
        assert_eq!(Ports::of(&[82, 80, 81]), Some(Ports::Ranges(vec![(80, 82)])));
        let apart = Ports::Ranges(vec![(80, 80), (90, 90), (443, 443)]);
        assert_eq!(Ports::of(&[443, 80, 90]), Some(apart));
    }

    #[test]
    fn of_many_ports_the_widest_gaps_are_left_out() {
        let ports: Vec<u16> = (0..1_000).map(|it| 10_000 + it * 2).chain([80, 40_000]).collect();
        let Some(Ports::Ranges(ranges)) = Ports::of(&ports) else { panic!("they are many") };
        assert_eq!(ranges.len(), MAX_RANGES);
        assert_eq!((ranges[0], ranges[MAX_RANGES - 1]), ((80, 80), (40_000, 40_000)));
        let has = |port: &u16| ranges.iter().any(|(first, last)| (first..=last).contains(&port));
        assert!(ports.iter().all(has));
    }

    #[test]
    fn ranges_are_told_by_a_program() {
        let ports = Ports::Ranges(vec![(80, 90), (443, 443)]);
        let program = ports.program().unwrap();
        let ops: Vec<_> = program.chunks(4).map(|op| (op[0], op[1], [op[2], op[3]])).collect();
        let first = [(2, 8, 20_u16), (0, 8, 80), (3, 8, 12), (0, 8, 90), (1, 4, 20)];
        let second = [(2, 8, 20_u16), (0, 8, 443), (3, 8, 12), (0, 8, 443)];
        let expected =
            first.iter().chain(&second).map(|(code, yes, no)| (*code, *yes, no.to_ne_bytes()));
        assert_eq!(ops, expected.collect::<Vec<_>>());
        let message = Request { ports, ..request() }.encode(1);
        assert_eq!(message[20..22], [0, 0]);
        assert_eq!(message[76 + 4..], program);
    }

    #[test]
    fn multipath_tcp_and_tags_are_attributes_after_the_struct() {
        let file = tempfile::tempfile().expect("create a temporary file");
        let protocol = Protocol::MultipathTcp(Family::V6);
        let message = Request { protocol, tags: Some(file.as_fd()), ..request() }.encode(1);
        assert_eq!(message[4..6], 20_u16.to_ne_bytes());
        assert_eq!(message[16..20], [10, 6, 0, 0]);
        assert_eq!(message[20..24], (1_u32 << 10).to_ne_bytes());
        let attributes = &message[72..];
        assert_eq!(attributes[0..2], 8_u16.to_ne_bytes());
        assert_eq!(attributes[2..4], 3_u16.to_ne_bytes());
        assert_eq!(attributes[4..8], 262_u32.to_ne_bytes());
        assert_eq!(attributes[8..10], 12_u16.to_ne_bytes());
        assert_eq!(attributes[16..20], file.as_fd().as_raw_fd().to_ne_bytes());
        assert_eq!(message[0..4], 92_u32.to_ne_bytes());
    }
}
