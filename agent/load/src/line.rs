//! A line that is answered by a line, and a datagram by a datagram.

use super::answer::Answer;

/// Reads an answer, or `None` if its line is not complete yet.
pub(super) fn answer(bytes: &[u8]) -> Result<Option<Answer>, String> {
    match bytes.iter().position(|byte| *byte == b'\n') {
        None => Ok(None),
        Some(end) if end + 1 == bytes.len() => Ok(Some(datagram(&bytes[..end]))),
        // Such bytes would be taken for the beginning of the next answer.
        Some(end) => Err(format!("{} bytes after the line", bytes.len() - end - 1)),
    }
}

/// Reads an answer that is complete.
pub(super) fn datagram(bytes: &[u8]) -> Answer {
    let last = bytes.trim_ascii_end().rsplit(u8::is_ascii_whitespace).next();
    let number = last.and_then(|word| std::str::from_utf8(word).ok()?.parse().ok());
    Answer { generation: number, reusable: true }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_tells_the_generation() {
        for (text, generation) in [
            (&b"3\r\n"[..], Some(3)),
            (b"ping of generation 12\n", Some(12)),
            (b"ping\n", None),
            (b"12 ping\n", None),
            (b"\n", None),
        ] {
            assert_eq!(answer(text), Ok(Some(Answer { generation, reusable: true })));
            assert_eq!(datagram(text).generation, generation);
        }
    }

    #[test]
    fn a_part_of_a_line_is_no_answer_and_more_than_a_line_a_wrong_one() {
        assert_eq!(answer(b"generation 1"), Ok(None));
        assert!(answer(b"1\n2").unwrap_err().contains("1 bytes after"));
    }
}
