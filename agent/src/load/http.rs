//! As much of HTTP/1 as a load generator needs: requests as bytes, and answers of a known or open length.

use super::answer::Answer;

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
    /// The length of the body; without one it lasts until the connection ends.
    pub(super) length: Option<u64>,
    /// Whether the server keeps the connection.
    pub(super) reusable: bool,
    /// The generation, where a header tells it.
    pub(super) generation: Option<u32>,
}

impl Head {
    /// Reads a head, or `None` if it is not complete yet.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<Self>, String> {
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            return if bytes.len() > LONGEST_HEAD {
                Err("endless head".to_owned())
            } else {
                Ok(None)
            };
        };
        let text = std::str::from_utf8(&bytes[..end])
            .map_err(|error| format!("head is not text: {error}"))?;
        let mut lines = text.split("\r\n");
        let version = status(lines.next().unwrap_or_default())?;
        let mut head =
            Self { end: end + 4, length: None, reusable: version == "HTTP/1.1", generation: None };
        for line in lines {
            head.header(line)?;
        }
        head.reusable &= head.length.is_some();
        Ok(Some(head))
    }

    fn header(&mut self, line: &str) -> Result<(), String> {
        let Some((name, value)) = line.split_once(':') else {
            return Err(format!("not a header: `{line}`"));
        };
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            let length = value.parse().map_err(|error| format!("length `{value}`: {error}"))?;
            self.length = Some(length);
        } else if name.eq_ignore_ascii_case("connection") {
            self.reusable = match value {
                _ if value.eq_ignore_ascii_case("close") => false,
                _ if value.eq_ignore_ascii_case("keep-alive") => true,
                _ => self.reusable,
            };
        } else if name.eq_ignore_ascii_case("generation") {
            // Servers that were not made for this may mean something else by it.
            self.generation = value.parse().ok();
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(format!("transfer encoding `{value}` instead of a length"));
        }
        Ok(())
    }
}

/// Reads an answer, or `None` if it is not complete yet. A body that is a number tells the generation, unless a header does.
pub(super) fn answer(bytes: &[u8], ended: bool) -> Result<Option<Answer>, String> {
    let Some(head) = Head::parse(bytes)? else { return Ok(None) };
    let rest = &bytes[head.end..];
    let body = match head.length.map(usize::try_from) {
        // Such bytes would be taken for the beginning of the next answer.
        Some(Ok(length)) if rest.len() > length => return Err(format!("more than {length} bytes")),
        Some(length) => length.ok().and_then(|length| rest.get(..length)),
        None => ended.then_some(rest),
    };
    let Some(body) = body else { return Ok(None) };
    let in_body = || std::str::from_utf8(body).ok()?.trim().parse().ok();
    let generation = head.generation.or_else(in_body);
    Ok(Some(Answer { generation, reusable: head.reusable }))
}

/// Checks the status line and returns its version.
fn status(line: &str) -> Result<&str, String> {
    let mut words = line.splitn(3, ' ');
    match (words.next(), words.next()) {
        (Some(version @ ("HTTP/1.1" | "HTTP/1.0")), Some("200")) => Ok(version),
        _ => Err(format!("status `{line}`")),
    }
}

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
