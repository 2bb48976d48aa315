//! A body in chunks, each with its length before it (`Transfer-Encoding: chunked`).

use httparse::Status;

/// How far such a body was read.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    next: Next,
}

/// What comes next.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Next {
    #[default]
    Size,
    /// So many bytes of a chunk.
    Content(u64),
    /// The end of the line after a chunk.
    Gap,
    /// Header fields and an empty line.
    Trailer,
    Nothing,
}

impl Chunks {
    /// Appends the content of what was received to `content`, and returns how many bytes of it were understood. The others
    /// have to come again, with more behind them.
    ///
    /// # Errors
    ///
    /// If they are no chunks, with what is wrong with them.
    pub(super) fn decode(&mut self, bytes: &[u8], content: &mut Vec<u8>) -> Result<usize, String> {
        let mut rest = bytes;
        while let Some((taken, next)) = self.step(rest, content)? {
            rest = &rest[taken..];
            self.next = next;
        }
        Ok(bytes.len() - rest.len())
    }

    /// Whether the end of the body was there.
    pub(super) fn complete(&self) -> bool {
        self.next == Next::Nothing
    }

    /// How many bytes are understood, and what comes after them; nothing if there are too few.
    fn step(&self, rest: &[u8], content: &mut Vec<u8>) -> Result<Option<(usize, Next)>, String> {
        match self.next {
            Next::Size => size(rest),
            Next::Content(left) => {
                let most = usize::try_from(left).unwrap_or(usize::MAX);
                let here = &rest[..rest.len().min(most)];
                content.extend_from_slice(here);
                Ok(match left - here.len() as u64 {
                    0 => Some((here.len(), Next::Gap)),
                    left => (!here.is_empty()).then_some((here.len(), Next::Content(left))),
                })
            }
            Next::Gap => match rest {
                [b'\r', b'\n', ..] => Ok(Some((2, Next::Size))),
                [] | [b'\r'] => Ok(None),
                _ => Err("a chunk that is longer than it says".to_owned()),
            },
            Next::Trailer => trailer(rest),
            Next::Nothing => Ok(None),
        }
    }
}

fn size(rest: &[u8]) -> Result<Option<(usize, Next)>, String> {
    let wrong = || {
        let line = rest.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let line = &line[..line.len().min(LONGEST_QUOTED)];
        Err(format!("chunk size `{}`", line.escape_ascii()))
    };
    match (rest.first(), httparse::parse_chunk_size(rest)) {
        // The parser takes no digits for a zero.
        (Some(first), _) if !first.is_ascii_hexdigit() => wrong(),
        (_, Ok(Status::Complete((taken, 0)))) => Ok(Some((taken, Next::Trailer))),
        (_, Ok(Status::Complete((taken, size)))) => Ok(Some((taken, Next::Content(size)))),
        (_, Ok(Status::Partial)) if rest.len() <= LONGEST_LINE => Ok(None),
        (_, Ok(Status::Partial) | Err(_)) => wrong(),
    }
}

fn trailer(rest: &[u8]) -> Result<Option<(usize, Next)>, String> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_FIELDS];
    match httparse::parse_headers(rest, &mut headers) {
        Ok(Status::Complete((taken, _fields))) => Ok(Some((taken, Next::Nothing))),
        Ok(Status::Partial) if rest.len() <= LONGEST_TRAILER => Ok(None),
        Ok(Status::Partial) => Err("endless trailer".to_owned()),
        Err(error) => Err(format!("trailer: {error}")),
    }
}

const LONGEST_LINE: usize = 1_024;
const LONGEST_QUOTED: usize = 32;
const LONGEST_TRAILER: usize = 16 * 1024;
const MOST_FIELDS: usize = 32;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WHOLE: &[u8] = b"3;name=value\r\n4\r\n\r\n00A\r\n1234567890\r\n0\r\nDigest: x\r\n\r\n";

    fn decoded(bytes: &[u8]) -> Result<(Vec<u8>, bool, usize), String> {
        let (mut chunks, mut content) = (Chunks::default(), Vec::new());
        let taken = chunks.decode(bytes, &mut content)?;
        Ok((content, chunks.complete(), taken))
    }

    #[test]
    fn the_end_is_found_with_its_trailer_and_nothing_behind_it_taken() {
        let more = [WHOLE, b"HTTP"].concat();
        assert_eq!(decoded(&more), Ok((b"4\r\n1234567890".to_vec(), true, WHOLE.len())));
    }

    #[test]
    fn bad_sizes_are_errors() {
        for bytes in [
            &b"\r\n"[..],
            b"x\r\n",
            b"-1\r\n",
            b"3 4\r\n",
            b"11111111111111111\r\n",
            b"1\n",
            b"2\r\n123\r\n",
            &[b'0'; 2_000],
        ] {
            assert!(decoded(bytes).is_err(), "{}", bytes.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn parts_of_any_length_are_put_together(cuts in proptest::collection::vec(1_usize..9, 1..60)) {
            let (mut chunks, mut content, mut waiting) = (Chunks::default(), Vec::new(), Vec::new());
            let mut left = WHOLE;
            for cut in cuts.into_iter().chain([WHOLE.len()]) {
                let (part, rest) = left.split_at(cut.min(left.len()));
                prop_assert!(left.is_empty() || !chunks.complete());
                left = rest;
                waiting.extend_from_slice(part);
                let taken = chunks.decode(&waiting, &mut content).unwrap();
                waiting.drain(..taken);
            }
            prop_assert!(chunks.complete() && waiting.is_empty());
            prop_assert_eq!(&content, b"4\r\n1234567890");
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            decoded(&bytes).ok();
        }
    }
}
