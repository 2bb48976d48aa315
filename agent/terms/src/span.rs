//! A time span on the wire, as people write it: `"2s 500ms"`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

/// How a [`Duration`] is written. For `#[serde(with = "Span")]`.
#[derive(Debug)]
pub enum Span {}

impl Span {
    /// Writes a span exactly.
    ///
    /// # Errors
    ///
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(span: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&humantime::format_duration(*span))
    }

    /// Reads one.
    ///
    /// # Errors
    ///
    /// When it is none.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        match Written::deserialize(from)? {
            Written::Text(text) => humantime::parse_duration(&text).map_err(|error| {
                D::Error::custom(format!("`{text}` is no time span such as `2s 500ms`: {error}"))
            }),
            Written::Parts { secs, nanos } if nanos < NANOSECONDS => Ok(Duration::new(secs, nanos)),
            Written::Parts { nanos, .. } => {
                Err(D::Error::custom(format!("a second has fewer than {nanos} nanoseconds")))
            }
        }
    }
}

const NANOSECONDS: u32 = 1_000_000_000;

#[derive(Deserialize)]
#[serde(untagged, expecting = "a time span such as `\"2s 500ms\"`")]
enum Written {
    Text(String),
    /// As agents wrote it down before.
    Parts {
        secs: u64,
        nanos: u32,
    },
}

/// The same for one that may not be there.
#[derive(Debug)]
pub enum OptionalSpan {}

impl OptionalSpan {
    /// Writes it, or null.
    ///
    /// # Errors
    ///
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(span: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        match span {
            Some(span) => Span::serialize(span, to),
            None => to.serialize_none(),
        }
    }

    /// Reads it, if it is there.
    ///
    /// # Errors
    ///
    /// When it is none.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        #[derive(Deserialize)]
        struct There(#[serde(with = "Span")] Duration);
        Ok(Option::<There>::deserialize(from)?.map(|There(span)| span))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Serialize, Deserialize)]
    struct Spans {
        #[serde(with = "Span")]
        one: Duration,
        #[serde(default, with = "OptionalSpan")]
        other: Option<Duration>,
    }

    #[test]
    fn a_span_is_text_and_what_was_written_before_is_read() {
        let spans = Spans { one: Duration::from_millis(2_500), other: None };
        let text = serde_json::to_string(&spans).unwrap();
        assert_eq!(text, r#"{"one":"2s 500ms","other":null}"#);
        let read = |text: &str| serde_json::from_str::<Spans>(text);
        assert_eq!(read(&text).unwrap(), spans);
        let before = r#"{"one":{"secs":2,"nanos":500000000},"other":"1h"}"#;
        let hour = Some(Duration::from_hours(1));
        assert_eq!(read(before).unwrap(), Spans { other: hour, ..spans });
        let refused = |text: &str| read(text).unwrap_err().to_string();
        assert!(refused(r#"{"one":"soon"}"#).contains("`soon` is no time span"));
        assert!(refused(r#"{"one":5}"#).contains("a time span such as"));
        assert!(refused(r#"{"one":{"secs":1,"nanos":1000000000}}"#).contains("nanoseconds"));
    }
}
