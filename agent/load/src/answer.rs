//! A request and its answer, in each language.

use rustix::net::SocketType;

use super::http::{self, After};
use super::plan::Protocol;
use super::{line, redis};

/// An understood answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Answer {
    /// Which generation gave it, if it says so.
    pub(super) generation: Option<u32>,
    /// Whether the server takes another request on this connection.
    pub(super) reusable: bool,
}

impl Protocol {
    /// What carries it.
    pub(super) fn transport(&self) -> SocketType {
        match self {
            Self::Http { .. } | Self::Line { .. } | Self::Redis => SocketType::STREAM,
            Self::Datagram { .. } => SocketType::DGRAM,
        }
    }

    /// The bytes that ask a server which generation it is.
    pub(super) fn request(&self, after: After) -> Vec<u8> {
        match self {
            Self::Http { path } => http::get(path, after),
            Self::Line { line } => format!("{line}\n").into_bytes(),
            Self::Datagram { text } => text.clone().into_bytes(),
            Self::Redis => redis::REQUEST.to_vec(),
        }
    }

    /// Reads an answer, or `None` if it is not complete yet.
    pub(super) fn answer(&self, bytes: &[u8], ended: bool) -> Result<Option<Answer>, String> {
        match self {
            Self::Http { .. } => http::answer(bytes, ended),
            Self::Line { .. } => line::answer(bytes),
            Self::Datagram { .. } => Ok(Some(line::datagram(bytes))),
            Self::Redis => redis::answer(bytes),
        }
    }
}
