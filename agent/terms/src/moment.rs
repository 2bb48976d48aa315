//! A moment on the wire, as people and programs write it: RFC 3339, in UTC, with milliseconds.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

/// How a [`SystemTime`] is written. For `#[serde(with = "Moment")]`.
#[derive(Debug)]
pub enum Moment {}

impl Moment {
    /// The text of one: `2023-11-14T22:13:20.123Z`.
    pub fn written(moment: SystemTime) -> String {
        // The form has four digits for the year.
        const LAST: Duration = Duration::from_millis(253_402_300_799_999);
        let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default().min(LAST);
        humantime::format_rfc3339_millis(UNIX_EPOCH + since).to_string()
    }

    /// Writes one.
    ///
    /// # Errors
    ///
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(moment: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&Self::written(*moment))
    }

    /// Reads one.
    ///
    /// # Errors
    ///
    /// When it is none.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SystemTime, D::Error> {
        let text = String::deserialize(from)?;
        humantime::parse_rfc3339(&text).map_err(|error| {
            D::Error::custom(format!(
                "`{text}` is no moment such as `2023-11-14T22:13:20.123Z`: {error}"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Serialize, Deserialize)]
    struct At(#[serde(with = "Moment")] SystemTime);

    #[test]
    fn a_moment_is_text_and_survives_being_written_and_read() {
        let at = At(UNIX_EPOCH + Duration::from_millis(1_700_000_000_123));
        let text = serde_json::to_string(&at).unwrap();
        assert_eq!(text, r#""2023-11-14T22:13:20.123Z""#);
        assert_eq!(serde_json::from_str::<At>(&text).unwrap(), at);
        let refused = serde_json::from_str::<At>(r#""yesterday""#).unwrap_err().to_string();
        assert!(refused.contains("`yesterday` is no moment"), "{refused}");
    }

    #[test]
    fn a_moment_is_written_however_the_clock_is_set() {
        let far = UNIX_EPOCH + Duration::from_secs(1 << 40);
        assert_eq!(Moment::written(far), "9999-12-31T23:59:59.999Z");
        let early = UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(Moment::written(early), "1970-01-01T00:00:00.000Z");
    }
}
