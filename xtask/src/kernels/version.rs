//! The order of Debian's versions, as its policy defines it.
//!
//! Written here because the library for it brings regular expressions, a calendar and numbers of any size along.

use std::cmp::Ordering;

/// A version without an epoch, which kernels have none of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version(String);

impl Version {
    pub(super) fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The revision is Debian's own, behind the last hyphen.
    fn parts(&self) -> (&str, &str) {
        self.0.rsplit_once('-').unwrap_or((&self.0, ""))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        let ((upstream, revision), (other_upstream, other_revision)) =
            (self.parts(), other.parts());
        compare(upstream, other_upstream).then_with(|| compare(revision, other_revision))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// In turns: what is no number by its characters, then a number by its value.
fn compare(mut one: &str, mut other: &str) -> Ordering {
    while !(one.is_empty() && other.is_empty()) {
        let (word, rest) = word(one);
        let (other_word, other_rest) = self::word(other);
        let (number, rest) = number(rest);
        let (other_number, other_rest) = self::number(other_rest);
        let order = compare_words(word, other_word).then(number.cmp(&other_number));
        if order.is_ne() {
            return order;
        }
        (one, other) = (rest, other_rest);
    }
    Ordering::Equal
}

fn word(text: &str) -> (&str, &str) {
    text.split_at(text.find(|it: char| it.is_ascii_digit()).unwrap_or(text.len()))
}

/// No digits are a zero, and so are more than anybody counts.
fn number(text: &str) -> (u64, &str) {
    let (digits, rest) =
        text.split_at(text.find(|it: char| !it.is_ascii_digit()).unwrap_or(text.len()));
    (digits.parse().unwrap_or(0), rest)
}

fn compare_words(one: &str, other: &str) -> Ordering {
    let ranks = |word: &str| word.chars().map(rank).chain([END]).collect::<Vec<_>>();
    ranks(one).cmp(&ranks(other))
}

/// A tilde comes before the end, letters come behind it, and all else behind the letters.
fn rank(character: char) -> u32 {
    match character {
        '~' => END - 1,
        letter if letter.is_ascii_alphabetic() => END + u32::from(letter),
        other => END + 0x100 + u32::from(other),
    }
}

/// Of a word.
const END: u32 = 1;

#[cfg(test)]
mod tests {
    use super::Version;

    #[test]
    fn versions_are_ordered_as_dpkg_orders_them() {
        let ascending = [
            "6.1.0~rc7-1",
            "6.1.0-1~bpo11+1",
            "6.1.0-1",
            "6.1.0-1+b1",
            "6.1.9-1",
            "6.1.10-1",
            "6.12.115-1",
            "6.12.115.1-1",
            "7.3~rc7-1~exp1",
            "7.3~rc7-1",
            "7.3.4-1~bpo13+1",
            "7.3.4-1",
        ];
        for pair in ascending.windows(2) {
            let [one, other] = [Version::new(pair[0]), Version::new(pair[1])];
            assert!(one < other, "{one:?} {other:?}");
            assert_eq!(one.cmp(&one), std::cmp::Ordering::Equal);
        }
    }
}
