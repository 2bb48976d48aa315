//! Real examples, changed in a few places.

use std::{fmt, ops::Range};

use proptest::{
    collection::vec,
    prelude::{Just, any},
    prop_oneof,
    sample::Index,
    strategy::Strategy,
};

/// An input, shown as text as far as it is some.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Bytes(Vec<u8>);

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}

/// One change. Places are shares of the length: they mean something in any text.
#[derive(Clone, Debug)]
enum Edit {
    /// A byte becomes another one.
    Set(Index, u8),
    /// So many bytes from there on become a number, as the kernel and the network write it.
    Binary(Index, u64, usize, bool),
    /// The next number in digits becomes another one.
    Number(Index, String),
    Insert(Index, Vec<u8>),
    Delete(Index, usize),
    /// A piece comes again, and again.
    Repeat(Index, usize, usize),
    /// From there on it is another example, from somewhere on.
    Splice(Index, Vec<u8>),
    Cut(Index),
}

/// One of these examples with up to eight changes; `words` are what its format has a meaning for.
pub(crate) fn mutated(
    examples: Vec<Vec<u8>>,
    words: &[&str],
) -> impl Strategy<Value = Bytes> + use<> {
    let words = words.iter().map(|word| word.as_bytes().to_vec()).collect();
    let edits = vec(edit(&examples, words), 0..8);
    (any::<Index>(), edits).prop_map(move |(which, edits)| {
        let mut bytes = which.get(&examples).clone();
        edits.into_iter().for_each(|edit| edit.apply(&mut bytes));
        Bytes(bytes)
    })
}

fn edit(examples: &[Vec<u8>], words: Vec<Vec<u8>>) -> impl Strategy<Value = Edit> + use<> {
    let at = any::<Index>;
    let examples = examples.to_vec();
    let tail = (at(), at()).prop_map(move |(which, from)| {
        let example = which.get(&examples);
        example[from.index(example.len() + 1)..].to_vec()
    });
    let word = if words.is_empty() {
        vec(any::<u8>(), 1..8).boxed()
    } else {
        at().prop_map(move |which| which.get(&words).clone()).boxed()
    };
    let width = prop_oneof![Just(1_usize), Just(2), Just(4), Just(8)];
    prop_oneof![
        3 => (at(), byte()).prop_map(|(at, byte)| Edit::Set(at, byte)),
        3 => (at(), number(), width, any::<bool>())
            .prop_map(|(at, number, width, swapped)| Edit::Binary(at, number, width, swapped)),
        3 => (at(), numeral()).prop_map(|(at, numeral)| Edit::Number(at, numeral)),
        2 => (at(), word).prop_map(|(at, word)| Edit::Insert(at, word)),
        1 => (at(), vec(any::<u8>(), 1..16)).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
        2 => (at(), 1..64_usize).prop_map(|(at, length)| Edit::Delete(at, length)),
        2 => (at(), 1..64_usize, times()).prop_map(|(at, length, times)| Edit::Repeat(at, length, times)),
        1 => (at(), tail).prop_map(|(at, tail)| Edit::Splice(at, tail)),
        1 => at().prop_map(Edit::Cut),
    ]
}

fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![
        any::<u8>(),
        proptest::sample::select(b"\0\n\r\t :=/\\\"'{}[](),-+.%?#@\x7f\x80\xff".to_vec())
    ]
}

fn times() -> impl Strategy<Value = usize> {
    prop_oneof![8 => 1..4_usize, 1 => 200..2000_usize]
}

/// Where formats and programs have their ends.
pub(crate) fn number() -> impl Strategy<Value = u64> {
    let ends = [0, 1, 2, 3, 4, 7, 8, 15, 16, 17, 63, 64, 71, 72, 127, 128, 255, 256, 1023, 1024];
    let larger = [15, 16, 31, 32, 63].into_iter().flat_map(|bits| {
        let end = 1_u64 << bits;
        [end - 1, end, end + 1]
    });
    let known = ends.into_iter().chain(larger).chain([u64::MAX - 1, u64::MAX]).collect::<Vec<_>>();
    prop_oneof![4 => proptest::sample::select(known), 1 => any::<u64>()]
}

fn numeral() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => number().prop_map(|number| number.to_string()),
        1 => number().prop_map(|number| format!("-{number}")),
        1 => number().prop_map(|number| format!("{number:x}")),
        1 => proptest::sample::select(vec!["", "00", "+1", "1e999", "0x", "18446744073709551616"])
            .prop_map(str::to_owned),
    ]
}

impl Edit {
    fn apply(self, bytes: &mut Vec<u8>) {
        match self {
            Self::Set(at, byte) => {
                if let Some(place) = at_most(bytes, at).and_then(|at| bytes.get_mut(at)) {
                    *place = byte;
                }
            }
            Self::Binary(at, number, width, swapped) => {
                let mut number = number.to_le_bytes()[..width].to_vec();
                if swapped {
                    number.reverse();
                }
                let place = piece(bytes, at, width);
                bytes.splice(place, number);
            }
            Self::Number(at, numeral) => {
                if let Some(place) = digits(bytes, at) {
                    bytes.splice(place, numeral.into_bytes());
                }
            }
            Self::Insert(at, new) => {
                let at = at.index(bytes.len() + 1);
                bytes.splice(at..at, new);
            }
            Self::Delete(at, length) => drop(bytes.drain(piece(bytes, at, length))),
            Self::Repeat(at, length, times) => {
                let place = piece(bytes, at, length);
                let again = bytes[place.clone()].repeat(times);
                bytes.splice(place.end..place.end, again);
            }
            Self::Splice(at, tail) => {
                bytes.truncate(at.index(bytes.len() + 1));
                bytes.extend(tail);
            }
            Self::Cut(at) => bytes.truncate(at.index(bytes.len() + 1)),
        }
    }
}

fn at_most(bytes: &[u8], at: Index) -> Option<usize> {
    (!bytes.is_empty()).then(|| at.index(bytes.len()))
}

fn piece(bytes: &[u8], at: Index, length: usize) -> Range<usize> {
    let begin = at.index(bytes.len() + 1);
    begin..(begin + length).min(bytes.len())
}

/// The first number at or behind a place.
fn digits(bytes: &[u8], at: Index) -> Option<Range<usize>> {
    let from = at_most(bytes, at)?;
    let begin = from + bytes[from..].iter().position(u8::is_ascii_digit)?;
    let length = bytes[begin..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    Some(begin..begin + length)
}
