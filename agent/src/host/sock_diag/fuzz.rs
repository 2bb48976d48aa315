//! Answers that the kernel gave, changed.

use std::net::{TcpListener, TcpStream};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};

use super::{
    dump::{Answer, Collected},
    flows::connection,
    listeners::merge,
    request::{Ports, Protocol, Request, encode_exact},
    wire::{Message, StateSet, envelopes},
};
use crate::fuzzing::{
    Verdict, fuzz,
    mutate::{Bytes, mutated},
};

const SEQUENCE: u32 = 1;

/// Every datagram of the answer to a question.
fn answer(question: &[u8]) -> Vec<Vec<u8>> {
    let socket = Socket::new(NETLINK_SOCK_DIAG).unwrap();
    socket.connect(&SocketAddr::new(0, 0)).unwrap();
    socket.send(question, 0).unwrap();
    let mut datagrams = Vec::new();
    loop {
        let mut buffer = Vec::with_capacity(64 << 10);
        socket.recv(&mut buffer, 0).unwrap();
        let is_dump = question[6..8] != [1, 0];
        let is_last = |it: Message<'_>| matches!(it, Message::Done(_) | Message::Error(_));
        let is_over = !is_dump || envelopes(&buffer).any(|it| is_last(it.message));
        datagrams.push(buffer);
        if is_over {
            return datagrams;
        }
    }
}

/// What the kernel says of a few sockets, and that it knows no such one.
fn answers() -> Vec<Vec<u8>> {
    let listeners = ["127.0.0.1:0", "[::1]:0", "[::]:0"].map(|it| TcpListener::bind(it).unwrap());
    let addresses = listeners.each_ref().map(|it| it.local_addr().unwrap());
    let clients = addresses.map(|it| TcpStream::connect(it).unwrap());
    let _accepted = listeners[0].accept().unwrap();
    let question = |states, with_tcp_info, protocol| Request {
        what: "sockets",
        protocol,
        states,
        ports: Ports::of(&addresses.map(|it| it.port())).unwrap(),
        with_tcp_info,
        tags: None,
    };
    let dumps = [
        question(StateSet::LISTEN, true, Protocol::Tcp),
        question(StateSet::CONNECTED, true, Protocol::Tcp),
        question(StateSet::CONNECTED, false, Protocol::Tcp),
    ];
    let mut questions: Vec<_> = dumps.iter().map(|it| it.encode(SEQUENCE)).collect();
    for client in &clients[..2] {
        let (local, remote) = (client.peer_addr().unwrap(), client.local_addr().unwrap());
        questions.push(encode_exact(local, remote, SEQUENCE));
        questions.push(encode_exact(local, ([127, 0, 0, 1], 1).into(), SEQUENCE));
    }
    let mut answers: Vec<_> = questions.iter().flat_map(|it| answer(it)).collect();
    answers.push(super::wire::tests::everything());
    answers
}

fn judge(datagram: &Bytes) -> Verdict {
    let mut collected = Collected::default();
    let datagram = datagram.as_ref();
    let sockets = match collected.take("sockets", SEQUENCE, datagram) {
        Ok(Some(Answer::Complete(sockets))) => sockets,
        Ok(Some(Answer::Interrupted)) => Vec::new(),
        Ok(None) => collected.so_far(),
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return Verdict::Refused;
        }
    };
    // Each has a message of its own: what is made of them cannot be more than what came.
    assert!(sockets.len() * super::wire::RawSocket::LENGTH <= datagram.len());
    let tags: usize = sockets.iter().filter_map(|it| it.tag.as_ref()).map(Vec::len).sum();
    assert!(tags <= datagram.len());
    let verdict = if sockets.is_empty() { Verdict::Refused } else { Verdict::Taken };
    for connection in sockets.iter().cloned().filter_map(connection) {
        let _: (_, bool) = (connection.stage(), connection.is_abandoned());
    }
    let listeners = merge(sockets.clone(), sockets.clone());
    assert_eq!(listeners.len(), sockets.len());
    verdict
}

#[test]
fn no_answer_breaks_the_list_of_sockets() {
    fuzz("sock_diag", &mutated(answers(), &["mptcp\0"]), judge);
}
