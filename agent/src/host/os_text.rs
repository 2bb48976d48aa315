//! Text of the operating system (arguments, variables, paths) in JSON.
//!
//! Linux allows any byte but zero in them, JSON only Unicode. What is UTF-8 is written as a string,
//! so that people can read the file; the rest as a list of bytes, so that nothing is lost.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::Path,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An argument, or the name or value of a variable: any bytes but zero.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct OsText(OsString);

impl OsText {
    /// The text as the standard library takes it.
    pub fn as_os_str(&self) -> &OsStr {
        &self.0
    }

    /// The text's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// From the bytes that the kernel shows.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(OsStr::from_bytes(bytes).to_owned())
    }
}

impl<T: Into<OsString>> From<T> for OsText {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl AsRef<OsStr> for OsText {
    fn as_ref(&self) -> &OsStr {
        &self.0
    }
}

impl AsRef<Path> for OsText {
    fn as_ref(&self) -> &Path {
        Path::new(&self.0)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Form {
    Readable(String),
    Bytes(Vec<u8>),
}

impl Serialize for OsText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.to_str() {
            Some(text) => serializer.serialize_str(text),
            None => Form::Bytes(self.as_bytes().to_vec()).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for OsText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(match Form::deserialize(deserializer)? {
            Form::Readable(text) => text.into(),
            Form::Bytes(bytes) => OsString::from_vec(bytes),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readable_text_is_a_string_and_other_bytes_survive() {
        let words = [OsText::from("LANG"), OsText::from_bytes(&[0xff, b'a', 0x80])];
        let json = serde_json::to_string(&words).unwrap();
        assert_eq!(json, r#"["LANG",[255,97,128]]"#);
        assert_eq!(serde_json::from_str::<[OsText; 2]>(&json).unwrap(), words);
    }
}
