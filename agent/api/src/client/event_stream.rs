//! Server-sent events, as far as the agent sends them: `data:` lines, an empty line after each event, and comments.

/// Larger than any event; a peer that sends more is none of ours.
const LARGEST: usize = 1 << 20;

/// Cuts a stream of bytes, in whatever pieces it comes, into the data of its events.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    bytes: Vec<u8>,
    data: Option<String>,
}

/// Why the bytes are no event stream.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoEvent {
    /// Longer than any event can be.
    #[error("an event is longer than {LARGEST} bytes")]
    TooLong,
    /// Not text.
    #[error("an event is not UTF-8")]
    NotText,
}

impl Decoder {
    /// Takes the next bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The data of the next event that is complete.
    pub(super) fn next(&mut self) -> Result<Option<String>, NoEvent> {
        while let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.bytes.drain(..=end).collect();
            let line = std::str::from_utf8(&line).ok().ok_or(NoEvent::NotText)?;
            let line = line.trim_end_matches('\n');
            let line = line.strip_suffix('\r').unwrap_or(line);
            if line.is_empty() {
                if let Some(data) = self.data.take() {
                    return Ok(Some(data));
                }
            } else if let Some(value) = field(line, "data") {
                self.add(value)?;
            }
        }
        if self.bytes.len() > LARGEST { Err(NoEvent::TooLong) } else { Ok(None) }
    }

    fn add(&mut self, value: &str) -> Result<(), NoEvent> {
        match &mut self.data {
            None => self.data = Some(value.to_owned()),
            Some(data) if data.len() + value.len() > LARGEST => return Err(NoEvent::TooLong),
            Some(data) => {
                data.push('\n');
                data.push_str(value);
            }
        }
        Ok(())
    }
}

/// The value of the field, if the line is one of that name. A comment is a field without a name.
fn field<'line>(line: &'line str, name: &str) -> Option<&'line str> {
    let (found, value) = line.split_once(':').unwrap_or((line, ""));
    (found == name).then(|| value.strip_prefix(' ').unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(pieces: &[&[u8]]) -> Result<Vec<String>, NoEvent> {
        let mut decoder = Decoder::default();
        let mut events = Vec::new();
        for piece in pieces {
            decoder.push(piece);
            while let Some(event) = decoder.next()? {
                events.push(event);
            }
        }
        Ok(events)
    }

    #[test]
    fn events_are_found_however_the_bytes_are_cut() {
        let stream = "data: {\"a\":1}\n\ndata:é\r\n\r\n".as_bytes();
        let expected = Ok(vec!["{\"a\":1}".to_owned(), "é".to_owned()]);
        assert_eq!(decode(&[stream]), expected);
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(decode(&bytes), expected);
    }

    #[test]
    fn lines_of_one_event_are_joined_and_all_else_is_passed_over() {
        let stream =
            b": keep-alive\n\nevent: progress\nid: 7\ndata: a\ndata:  b\ndata\n\nretry: 5\n\n";
        assert_eq!(decode(&[stream]), Ok(vec!["a\n b\n".to_owned()]));
    }

    #[test]
    fn an_event_that_was_cut_off_is_none() {
        assert_eq!(decode(&[b"data: a\n"]), Ok(vec![]));
    }

    #[test]
    fn what_is_no_event_stream_is_refused() {
        assert_eq!(decode(&[b"data: \xff\n\n"]), Err(NoEvent::NotText));
        assert_eq!(decode(&[&vec![b'a'; LARGEST + 1]]), Err(NoEvent::TooLong));
        let half = [b"data: ".as_slice(), &vec![b'a'; LARGEST / 2 + 1], b"\n"].concat();
        assert_eq!(decode(&[&half, &half]), Err(NoEvent::TooLong));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(pieces in proptest::collection::vec(proptest::collection::vec(0_u8.., 0..40), 0..8)) {
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            decode(&pieces).ok();
        }
    }
}
