//! Values that are typed: parsed once, into what cannot be wrong.

use std::str::FromStr;

/// What becomes of a variable in the environment of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Variable {
    /// It has this value, whatever it had.
    Set {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
    },
    /// It is not there.
    Unset {
        /// Its name.
        name: String,
    },
}

/// The text neither sets nor unsets a variable.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected NAME=VALUE, or NAME- to unset it, got `{0}`")]
pub(in crate::cli) struct NoVariable(String);

impl FromStr for Variable {
    type Err = NoVariable;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = |name: &str| Some(name.to_owned()).filter(|name| !name.is_empty());
        let variable = match (text.split_once('='), text.strip_suffix('-')) {
            (Some((name, value)), _) => {
                named(name).map(|name| Self::Set { name, value: value.to_owned() })
            }
            (None, Some(name)) => named(name).map(|name| Self::Unset { name }),
            (None, None) => None,
        };
        variable.ok_or_else(|| NoVariable(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_needs_a_name_and_may_have_any_value() {
        let variable =
            |name: &str, value: &str| Variable::Set { name: name.into(), value: value.into() };
        assert_eq!("A=b=c".parse(), Ok(variable("A", "b=c")));
        assert_eq!("A=".parse(), Ok(variable("A", "")));
        assert!("=b".parse::<Variable>().is_err());
        assert!("A".parse::<Variable>().is_err());
        assert!("-".parse::<Variable>().is_err());
        assert_eq!("A-".parse(), Ok(Variable::Unset { name: "A".into() }));
    }
}
