//! Real documents, changed in a few of their values: most changes of their text make none of them.

use proptest::{
    collection::vec,
    prelude::any,
    prop_oneof,
    sample::{Index, select},
    strategy::Strategy,
};
use serde_json::{Value, json};

use super::mutate::{Bytes, mutated, number};

/// One of these documents with up to six values changed, or now and then its text.
pub(crate) fn mutated_documents(
    documents: Vec<Value>,
    words: &[&str],
) -> impl Strategy<Value = Bytes> + use<> {
    let texts = documents.iter().map(|it| it.to_string().into_bytes()).collect();
    let in_text = mutated(texts, words);
    let in_values = (any::<Index>(), vec(change(), 0..6)).prop_map(move |(which, changes)| {
        let mut document = which.get(&documents).clone();
        changes.into_iter().for_each(|change| change.apply(&mut document));
        document.to_string().into_bytes()
    });
    prop_oneof![3 => in_values.prop_map(Bytes::from), 1 => in_text]
}

/// What becomes of one value.
#[derive(Clone, Debug)]
enum Change {
    Replace(Index, Value),
    /// It is what another one is.
    Copy(Index, Index),
    Remove(Index),
    /// In a list it is there twice.
    Double(Index),
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<Index>;
    prop_oneof![
        3 => (at(), value()).prop_map(|(at, value)| Change::Replace(at, value)),
        2 => (at(), at()).prop_map(|(from, to)| Change::Copy(from, to)),
        1 => at().prop_map(Change::Remove),
        1 => at().prop_map(Change::Double),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let odd = vec![
        json!(null),
        json!(true),
        json!(-1),
        json!(1.5),
        json!(""),
        json!("/"),
        json!("a\u{0}b"),
        json!([]),
        json!({}),
        json!([255, 0]),
        json!("x".repeat(300)),
    ];
    prop_oneof![
        3 => number().prop_map(|number| json!(number)),
        1 => any::<i64>().prop_map(|number| json!(number)),
        2 => select(odd),
    ]
}

impl Change {
    fn apply(self, document: &mut Value) {
        let count = count(document);
        match self {
            Self::Replace(at, value) => {
                let _: Option<()> = nth(document, at.index(count)).map(|place| *place = value);
            }
            Self::Copy(from, to) => {
                let copy = nth(document, from.index(count)).map(|it| it.clone());
                if let (Some(copy), Some(place)) = (copy, nth(document, to.index(count))) {
                    *place = copy;
                }
            }
            Self::Remove(at) => inside(document, at.index(count), |list| {
                list.pop();
            }),
            Self::Double(at) => inside(document, at.index(count), |list| {
                list.extend(list.first().cloned());
            }),
        }
    }
}

/// Changes a list, or takes an entry out of a table.
fn inside(document: &mut Value, at: usize, change: impl FnOnce(&mut Vec<Value>)) {
    match nth(document, at) {
        Some(Value::Array(list)) => change(list),
        Some(Value::Object(table)) => {
            let middle = table.keys().nth(at % table.len().max(1)).cloned();
            middle.and_then(|key| table.remove(&key));
        }
        _ => {}
    }
}

fn parts(value: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match value {
        Value::Array(list) => Box::new(list.iter()),
        Value::Object(table) => Box::new(table.values()),
        _ => Box::new(std::iter::empty()),
    }
}

fn count(value: &Value) -> usize {
    1 + parts(value).map(count).sum::<usize>()
}

/// The value that comes so many places after this one, counting what is inside of each.
fn nth(value: &mut Value, at: usize) -> Option<&mut Value> {
    if at == 0 {
        return Some(value);
    }
    let mut left = at - 1;
    let parts: Box<dyn Iterator<Item = &mut Value>> = match value {
        Value::Array(list) => Box::new(list.iter_mut()),
        Value::Object(table) => Box::new(table.values_mut()),
        _ => return None,
    };
    for part in parts {
        let inside = count(part);
        if left < inside {
            return nth(part, left);
        }
        left -= inside;
    }
    None
}
