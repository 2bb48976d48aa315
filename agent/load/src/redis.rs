//! As much of the Redis protocol as a load generator needs.

use super::answer::Answer;

/// A `PING`, and the question that tells which generation answers.
pub(super) const REQUEST: &[u8] =
    b"PING\r\n*3\r\n$6\r\nCONFIG\r\n$3\r\nGET\r\n$10\r\ndbfilename\r\n";

/// Reads the answers to [`REQUEST`], or `None` if they are not complete yet.
pub(super) fn answer(bytes: &[u8]) -> Result<Option<Answer>, String> {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.split_inclusive("\r\n");
    for expected in ["+PONG", "*2", "$10", "dbfilename"] {
        match next(&mut lines) {
            Some(line) if line == expected => {}
            Some(line) => return Err(format!("got `{line}` instead of `{expected}`")),
            None => return Ok(None),
        }
    }
    let (Some(_length), Some(name)) = (next(&mut lines), next(&mut lines)) else { return Ok(None) };
    if lines.next().is_some() {
        return Err("more than two answers".to_owned());
    }
    let number = name.strip_prefix("gen-").and_then(|name| name.strip_suffix(".rdb"));
    let generation: u32 = number
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| format!("dbfilename `{name}`"))?;
    Ok(Some(Answer { generation: Some(generation), reusable: true }))
}

/// The next complete line, without its end.
fn next<'text>(lines: &mut impl Iterator<Item = &'text str>) -> Option<&'text str> {
    lines.next()?.strip_suffix("\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &[u8] = b"+PONG\r\n*2\r\n$10\r\ndbfilename\r\n$9\r\ngen-3.rdb\r\n";

    #[test]
    fn the_name_of_the_file_tells_the_generation() {
        assert_eq!(answer(WHOLE).unwrap(), Some(Answer { generation: Some(3), reusable: true }));
    }

    #[test]
    fn a_part_of_an_answer_is_never_an_answer() {
        for cut in 0..WHOLE.len() {
            assert_eq!(answer(&WHOLE[..cut]).unwrap(), None, "{cut}");
        }
    }

    #[test]
    fn more_than_was_asked_for_is_a_wrong_answer() {
        assert!(answer(&[WHOLE, b"+"].concat()).is_err());
    }

    #[test]
    fn an_error_is_a_wrong_answer() {
        assert!(answer(b"-LOADING\r\n").unwrap_err().contains("LOADING"));
    }
}
