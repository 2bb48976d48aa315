//! As much of HTTP/1 as a load generator needs: requests as bytes, and answers of a known length, in
//! chunks, or until the end of the connection.

use std::cmp::Ordering;
use std::mem::MaybeUninit;
use std::str::FromStr;

use httparse::Status;

use super::answer::Answer;
use super::chunks::Chunks;

/// A request that says whether the connection is wanted afterwards.
pub(super) fn get(path: &str, after: After) -> Vec<u8> {
    let connection = match after {
        After::Close => "close",
        After::Keep => "keep-alive",
    };
    format!("GET {path} HTTP/1.1\r\nHost: load\r\nConnection: {connection}\r\n\r\n").into_bytes()
}

/// The head of a request whose body of `length` bytes follows.
pub(super) fn post(path: &str, length: u32) -> Vec<u8> {
    format!("POST {path} HTTP/1.1\r\nHost: load\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n").into_bytes()
}

/// What the client does with the connection after the answer.
#[derive(Clone, Copy, Debug)]
pub(super) enum After {
    Close,
    Keep,
}

/// The head of an answer.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Head {
    /// Where the body begins.
    pub(super) end: usize,
    /// Where the body ends.
    pub(super) framing: Framing,
    /// Whether the server keeps the connection.
    pub(super) reusable: bool,
    /// The generation, where a header tells it.
    pub(super) generation: Option<u32>,
}

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Framing {
    /// After so many bytes.
    Length(u64),
    /// After the last chunk.
    Chunks,
    /// With the end of the connection.
    UntilEnd,
}

impl Head {
    /// Reads a head, or `None` if it is not complete yet.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<Self>, String> {
        let mut headers = [MaybeUninit::uninit(); MOST_HEADERS];
        let mut response = httparse::Response::new(&mut []);
        let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
            &mut response,
            bytes,
            &mut headers,
        );
        let end = match parsed.map_err(|error| format!("head: {error}"))? {
            Status::Complete(end) => end,
            Status::Partial if bytes.len() > LONGEST_HEAD => return Err("endless head".to_owned()),
            Status::Partial => return Ok(None),
        };
        if response.code != Some(200) {
            let code = response.code.unwrap_or_default();
            return Err(format!("status `{code} {}`", response.reason.unwrap_or_default()));
        }
        let framing = Framing::UntilEnd;
        let mut head =
            Self { end, framing, reusable: response.version == Some(1), generation: None };
        for header in &*response.headers {
            head.header(header)?;
        }
        head.reusable &= head.framing != Framing::UntilEnd;
        Ok(Some(head))
    }

    fn header(&mut self, header: &httparse::Header<'_>) -> Result<(), String> {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        let value = header.value;
        if is("content-length") {
            let length = number(value);
            self.frame(Framing::Length(length.ok_or_else(|| wrong("length", value))?))?;
        } else if is("transfer-encoding") {
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err(wrong("transfer encoding", value));
            }
            self.frame(Framing::Chunks)?;
        } else if is("connection") {
            self.reusable = match value {
                _ if value.eq_ignore_ascii_case(b"close") => false,
                _ if value.eq_ignore_ascii_case(b"keep-alive") => true,
                _ => self.reusable,
            };
        } else if is("generation") {
            // Servers that were not made for this may mean something else by it.
            self.generation = number(value);
        }
        Ok(())
    }

    /// Two ends would leave it to the reader where the next answer begins.
    fn frame(&mut self, framing: Framing) -> Result<(), String> {
        if self.framing != Framing::UntilEnd && self.framing != framing {
            return Err(format!("{:?} and {framing:?} of one body", self.framing));
        }
        self.framing = framing;
        Ok(())
    }
}

/// Reads an answer, or `None` if it is not complete yet. A body that is a number tells the generation, unless a header does.
pub(super) fn answer(bytes: &[u8], ended: bool) -> Result<Option<Answer>, String> {
    let Some(head) = Head::parse(bytes)? else { return Ok(None) };
    let body = &bytes[head.end..];
    let in_body = match head.framing {
        Framing::Length(length) => match (body.len() as u64).cmp(&length) {
            // Such bytes would be taken for the beginning of the next answer.
            Ordering::Greater => return Err(format!("more than {length} bytes")),
            Ordering::Less => return Ok(None),
            Ordering::Equal => number(body),
        },
        Framing::Chunks => {
            let (mut chunks, mut content) = (Chunks::default(), Vec::new());
            let taken = chunks.decode(body, &mut content)?;
            match (chunks.complete(), body.len() - taken) {
                (true, 0) => number(&content),
                (true, more) => return Err(format!("{more} bytes more than its chunks")),
                (false, _) => return Ok(None),
            }
        }
        Framing::UntilEnd if ended => number(body),
        Framing::UntilEnd => return Ok(None),
    };
    let generation = head.generation.or(in_body);
    Ok(Some(Answer { generation, reusable: head.reusable }))
}

/// What has no other content than a number.
fn number<N: FromStr>(bytes: &[u8]) -> Option<N> {
    std::str::from_utf8(bytes.trim_ascii()).ok()?.parse().ok()
}

fn wrong(what: &str, value: &[u8]) -> String {
    format!("{what} `{}`", value.escape_ascii())
}

/// More than any server sends that is not broken.
const MOST_HEADERS: usize = 96;
const LONGEST_HEAD: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_known_length_makes_a_connection_reusable() {
        let bytes = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n12\n";
        assert_eq!(
            answer(bytes, false).unwrap(),
            Some(Answer { generation: Some(12), reusable: true })
        );
    }

    #[test]
    fn an_announced_close_does_not() {
        let bytes = b"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 2\r\n\r\n1\n";
        assert_eq!(
            answer(bytes, false).unwrap(),
            Some(Answer { generation: Some(1), reusable: false })
        );
    }

    #[test]
    fn version_1_0_closes_unless_it_says_otherwise() {
        let bytes = b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n1\n";
        assert!(!answer(bytes, false).unwrap().unwrap().reusable);
        let bytes = b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n1\n";
        assert!(answer(bytes, false).unwrap().unwrap().reusable);
    }

    #[test]
    fn without_a_length_the_body_lasts_until_the_end() {
        let bytes = b"HTTP/1.0 200 OK\r\n\r\n7\n";
        assert_eq!(answer(bytes, false).unwrap(), None);
        assert_eq!(
            answer(bytes, true).unwrap(),
            Some(Answer { generation: Some(7), reusable: false })
        );
    }

    #[test]
    fn a_header_tells_the_generation_before_the_body_does() {
        let bytes = b"HTTP/1.1 200 OK\r\nGeneration: 4\r\nContent-Length: 2\r\n\r\n1\n";
        assert_eq!(answer(bytes, false).unwrap().unwrap().generation, Some(4));
        let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        assert_eq!(answer(bytes, false).unwrap().unwrap().generation, None);
    }

    #[test]
    fn an_error_is_a_wrong_answer() {
        let error = answer(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", false).unwrap_err();
        assert!(error.contains("500"), "{error}");
    }

    #[test]
    fn more_than_was_announced_is_a_wrong_answer() {
        let error =
            answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n1\n2\n", false).unwrap_err();
        assert!(error.contains("more than 2"), "{error}");
    }

    fn chunked(body: &str) -> Result<Option<Answer>, String> {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n";
        answer(format!("{head}{body}").as_bytes(), false)
    }

    #[test]
    fn chunks_make_one_body_and_a_connection_reusable() {
        let whole = Answer { generation: Some(42), reusable: true };
        let body = "1\r\n4\r\n2\r\n2\n\r\n0\r\n\r\n";
        assert_eq!(chunked(body), Ok(Some(whole)));
        for cut in 0..body.len() {
            assert_eq!(chunked(&body[..cut]), Ok(None), "{cut}");
        }
    }

    #[test]
    fn bad_chunks_are_a_wrong_answer() {
        for (body, reason) in [
            ("x\r\n", "chunk size `x`"),
            ("1\r\n42\r\n", "longer than it says"),
            ("0\r\n\r\n1", "1 bytes more"),
        ] {
            let error = chunked(body).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn two_ends_of_one_body_are_a_wrong_answer() {
        let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1";
        assert!(answer(bytes, false).unwrap_err().contains("of one body"));
        let bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n";
        assert!(answer(bytes, false).unwrap_err().contains("gzip"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200), ended: bool) {
            answer(&bytes, ended).ok();
        }

        #[test]
        fn a_part_of_an_answer_is_never_an_answer(cut in 0_usize..42) {
            let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n123";
            prop_assume!(cut < whole.len());
            prop_assert_eq!(answer(&whole[..cut], true).unwrap(), None);
        }
    }
}
