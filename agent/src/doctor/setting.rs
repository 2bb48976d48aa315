//! What is no obstacle, but changes what to expect.

use std::{fs, io};

use super::{Check, host::all_causes};
use crate::{
    datapath::{self, DatapathError, LookupProgram},
    host::{bpf_links::holders_of_program, loopback},
    places::Places,
};

/// What is set on this machine and in this network namespace.
pub(super) fn checks(places: &Places) -> Vec<Check> {
    // Of pins that cannot be read the services are told.
    let ours = datapath::steering_program(&places.pin_dir).unwrap_or_default();
    vec![
        lookup_programs(datapath::lookup_programs(), ours),
        loopback(loopback::is_down()),
        multipath(&fs::read_to_string(MULTIPATH)),
        migration(&fs::read_to_string(MIGRATION)),
    ]
}

/// Ours replaces what those before it chose, on its own ports: others are no obstacle, but their owners should know.
fn lookup_programs(found: Result<Vec<LookupProgram>, DatapathError>, ours: Option<u32>) -> Check {
    let name = "socket lookup";
    match found {
        Ok(programs) if programs.is_empty() => {
            Check::ok(name, "no program steers in this network namespace")
        }
        Ok(programs) => Check::ok(
            name,
            format!(
                "these programs steer in this network namespace: {}",
                programs.iter().map(|it| described(it, ours)).collect::<Vec<_>>().join(", ")
            ),
        ),
        Err(error) => Check::unknown(name, all_causes(&error)),
    }
}

/// Ours by its name, and all that is needed to find anybody else's.
fn described(program: &LookupProgram, ours: Option<u32>) -> String {
    let LookupProgram { id, name, endpoints } = program;
    if ours == Some(*id) {
        return name.clone();
    }
    let whose = endpoints.as_ref().map_or("", |_| " of another agent");
    let holders = holders_of_program(*id).unwrap_or_default();
    let holders: Vec<_> = holders.iter().map(ToString::to_string).collect();
    let held = match holders.is_empty() {
        true => String::new(),
        false => format!(", held by process {}", holders.join(", ")),
    };
    format!("{name}{whose} (number {id}{held})")
}

/// Servers may do without: they have other addresses, and clients elsewhere.
fn loopback(is_down: bool) -> Check {
    let found = match is_down {
        false => "up: a new generation can be asked to accept".to_owned(),
        true => format!(
            "down: no new generation can be asked to accept, and that it listens has to be enough; `{}` mends it",
            loopback::FIX
        ),
    };
    Check::ok("loopback", found)
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
        let program =
            |id, name: &str, endpoints| LookupProgram { id, name: name.to_owned(), endpoints };
        let [ours, other, agent] = [
            program(5, "steer", Some(Vec::new())),
            program(u32::MAX, "dispatcher", None),
            program(u32::MAX, "steer", Some(Vec::new())),
        ];
        let check = lookup_programs(Ok(vec![other, agent, ours]), Some(5));
        assert_eq!(check.verdict, Verdict::Ok);
        assert!(
            check.detail.ends_with(
                ": dispatcher (number 4294967295), steer of another agent (number 4294967295), steer"
            ),
            "{check:?}"
        );
    }
}
