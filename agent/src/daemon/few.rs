//! Lists in messages, of which a server decides how long they would be.

/// As many are listed in a message.
pub(super) const MOST: usize = 16;

/// The first of them, and how many more there are.
pub(super) fn few(all: &[String], between: &str) -> String {
    few_of(all, between, Clone::clone)
}

/// The same, where to describe all of them would take its time.
pub(super) fn few_of<T>(all: &[T], between: &str, describe: impl Fn(&T) -> String) -> String {
    let shown = all.iter().take(MOST).map(describe).collect::<Vec<_>>().join(between);
    match all.len().checked_sub(MOST).filter(|more| *more > 0) {
        Some(more) => format!("{shown} and {more} more"),
        None => shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_shown_is_described() {
        let described = std::cell::Cell::new(0);
        let text = few_of(&[7; 40], ", ", |number| {
            described.set(described.get() + 1);
            number.to_string()
        });
        assert_eq!(described.get(), MOST);
        assert!(text.ends_with("7, 7 and 24 more"), "{text}");
        assert_eq!(few(&["a".to_owned(), "b".to_owned()], "; "), "a; b");
    }
}
