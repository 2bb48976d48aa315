//! `agent launch N`: becoming a server. No command for people, so it is not among those that are parsed.

use std::{ffi::OsString, os::fd::RawFd};

use crate::host::launch::TRAMPOLINE_ARGUMENT;

/// The descriptor that says which server to become, if the command line is the one that the agent starts servers by.
///
/// To be asked first of all: a server's environment may hold anything under our names, so nothing else may be looked at.
pub fn asked_for(arguments: &[OsString]) -> Option<RawFd> {
    match arguments {
        [_, command, descriptor] if command == TRAMPOLINE_ARGUMENT => {
            descriptor.to_str()?.parse().ok()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_agents_own_command_line_becomes_a_server() {
        let asked = |line: &str| {
            asked_for(&line.split_whitespace().map(OsString::from).collect::<Vec<_>>())
        };
        assert_eq!(asked("agent launch 3"), Some(3));
        for line in
            ["agent", "agent launch", "agent launch x", "agent launch 3 4", "agent status 3"]
        {
            assert_eq!(asked(line), None, "{line}");
        }
    }
}
