//! Which service is meant.

use std::{fmt, str::FromStr};

use agent_terms::{ServiceName, ServiceNameError};

/// A service, as it is pointed at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selected {
    /// By its name.
    Name(ServiceName),
    /// By one of its ports.
    Port(u16),
}

impl FromStr for Selected {
    type Err = ServiceNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // A name is never only digits, so a number can be nothing but a port.
        match text.parse() {
            Ok(port) if port > 0 => Ok(Self::Port(port)),
            Ok(_) | Err(_) => text.parse().map(Self::Name),
        }
    }
}

impl fmt::Display for Selected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Port(port) => port.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_selects_by_port_and_all_else_by_name() {
        assert_eq!("8080".parse(), Ok(Selected::Port(8080)));
        assert_eq!("web-8080".parse(), Ok(Selected::Name("web-8080".parse().unwrap())));
        assert_eq!("0".parse::<Selected>(), Err(ServiceNameError::OnlyDigits));
        assert_eq!("70000".parse::<Selected>(), Err(ServiceNameError::OnlyDigits));
    }
}
