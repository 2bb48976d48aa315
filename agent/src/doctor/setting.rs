//! What is no obstacle, but changes what to expect.

use std::{fs, io};

use super::Check;
use crate::datapath::probe;

/// What is set on this machine and in this network namespace.
pub(super) fn checks() -> Vec<Check> {
    vec![
        other_lookup_programs(probe::lookup_programs()),
        multipath(&fs::read_to_string(MULTIPATH)),
        migration(&fs::read_to_string(MIGRATION)),
    ]
}

/// The last selection wins among them: ours are no obstacle to others, nor they to us on other ports.
fn other_lookup_programs(found: io::Result<Vec<String>>) -> Check {
    let name = "socket lookup";
    match found {
        Ok(programs) if programs.is_empty() => {
            Check::ok(name, "no program steers in this network namespace")
        }
        Ok(programs) => Check::ok(
            name,
            format!("these programs steer in this network namespace: {}", programs.join(", ")),
        ),
        Err(error) => Check::unknown(name, format!("list the programs: {error}")),
    }
}

fn multipath(setting: &io::Result<String>) -> Check {
    let name = "Multipath TCP";
    match setting.as_deref().map(str::trim) {
        Ok("0") => Check::ok(name, "off: every listener can be steered to"),
        Ok(_) => Check::ok(
            name,
            "on: a Go server is reached by the kernel's own lookup until its first upgrade",
        ),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Check::ok(name, "not in this kernel: every listener can be steered to")
        }
        Err(error) => Check::unknown(name, format!("read `{MULTIPATH}`: {error}")),
    }
}

fn migration(setting: &io::Result<String>) -> Check {
    let name = "tcp_migrate_req";
    match setting.as_deref().map(str::trim) {
        Ok("0") => Check::ok(name, "0: connections in a closing listener's queue are waited for"),
        Ok(_) => {
            Check::ok(name, "1: the kernel moves connections out of a closing listener's queue")
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Check::ok(
            name,
            "not in this kernel: connections in a closing listener's queue are waited for",
        ),
        Err(error) => Check::unknown(name, format!("read `{MIGRATION}`: {error}")),
    }
}

const MULTIPATH: &str = "/proc/sys/net/mptcp/enabled";
const MIGRATION: &str = "/proc/sys/net/ipv4/tcp_migrate_req";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn a_setting_that_the_kernel_lacks_is_no_obstacle() {
        let lacking = || Err(io::ErrorKind::NotFound.into());
        assert_eq!(multipath(&lacking()).verdict, Verdict::Ok);
        assert_eq!(migration(&lacking()).verdict, Verdict::Ok);
        assert_eq!(
            migration(&Err(io::ErrorKind::PermissionDenied.into())).verdict,
            Verdict::Unknown
        );
    }

    #[test]
    fn other_programs_are_named() {
        let check = other_lookup_programs(Ok(vec!["steer".to_owned(), "program 7".to_owned()]));
        assert_eq!(check.verdict, Verdict::Ok);
        assert!(check.detail.ends_with("steer, program 7"));
    }
}
