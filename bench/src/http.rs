//! As much of HTTP/1 as a client needs that measures: one request, one answer of a known length.

use std::io::{Read, Write};

use anyhow::{Context as _, Result, bail, ensure};

/// What came back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer<'buffer> {
    /// Its body.
    pub(crate) body: &'buffer [u8],
    /// Whether the server ends the connection after it.
    pub(crate) closes: bool,
}

/// Sends a request and reads the answer, which must be a success. The buffer is only there to be used again.
pub(crate) fn exchange<'buffer>(
    stream: &mut (impl Read + Write),
    request: &[u8],
    buffer: &'buffer mut Vec<u8>,
) -> Result<Answer<'buffer>> {
    stream.write_all(request).context("send the request")?;
    buffer.clear();
    let head = loop {
        receive(stream, buffer)?;
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break Head::parse(&buffer[..end])?;
        }
    };
    let whole = head.end + head.length;
    while buffer.len() < whole {
        receive(stream, buffer)?;
    }
    ensure!(buffer.len() == whole, "the answer is longer than it says");
    Ok(Answer { body: &buffer[head.end..], closes: head.closes })
}

fn receive(stream: &mut impl Read, buffer: &mut Vec<u8>) -> Result<()> {
    let mut bytes = [0; 4096];
    let read = stream.read(&mut bytes).context("read the answer")?;
    ensure!(read > 0, "the connection ended within the answer");
    buffer.extend_from_slice(&bytes[..read]);
    Ok(())
}

struct Head {
    /// Where the body begins.
    end: usize,
    length: usize,
    closes: bool,
}

impl Head {
    fn parse(bytes: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(bytes).context("the head of the answer is no text")?;
        let keeps = match text.get(.."HTTP/1.1 200 ".len()) {
            Some("HTTP/1.1 200 ") => true,
            // It would have to say that it keeps the connection, and nobody has asked it to.
            Some("HTTP/1.0 200 ") => false,
            _ => bail!("the answer is no success: {}", text.lines().next().unwrap_or_default()),
        };
        let value = |name: &str| {
            let mut fields = text.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
            fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, it)| it.trim())
        };
        let length = value("content-length").context("the answer does not tell its length")?;
        Ok(Self {
            end: bytes.len() + 4,
            length: length.parse().with_context(|| format!("the length `{length}`"))?,
            closes: !keeps
                || value("connection").is_some_and(|it| it.eq_ignore_ascii_case("close")),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    /// Gives its bytes away in pieces.
    struct Pieces<'a>(std::slice::Iter<'a, &'a [u8]>);

    impl Read for Pieces<'_> {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            let piece = self.0.next().copied().unwrap_or_default();
            bytes[..piece.len()].copy_from_slice(piece);
            Ok(piece.len())
        }
    }

    impl Write for Pieces<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_answer_may_come_in_pieces() {
        let pieces: [&[u8]; 3] =
            [b"HTTP/1.1 200 OK\r\nConnec", b"tion: close\r\ncontent-length: 2\r\n\r\n1", b"\n"];
        let mut buffer = Vec::new();
        let answer = exchange(&mut Pieces(pieces.iter()), b"", &mut buffer).unwrap();
        assert_eq!(answer, Answer { body: b"1\n", closes: true });
    }

    #[test]
    fn version_1_0_closes() {
        let pieces: [&[u8]; 1] = [b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n1\n"];
        let mut buffer = Vec::new();
        let answer = exchange(&mut Pieces(pieces.iter()), b"", &mut buffer).unwrap();
        assert_eq!(answer, Answer { body: b"1\n", closes: true });
    }

    #[test]
    fn anything_but_one_whole_success_is_a_failure() {
        for answer in [
            "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n1",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n1\n2",
        ] {
            let pieces = [answer.as_bytes()];
            exchange(&mut Pieces(pieces.iter()), b"", &mut Vec::new()).unwrap_err();
        }
    }
}
