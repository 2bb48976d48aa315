//! Fixed values for the tests.

use agent_api::SCHEMA;
pub(super) use agent_api::samples::*;

use super::{doctor::Diagnosis, output::Look};
use crate::doctor::{Check, Verdict};

pub(super) const BLACK: Look = Look { wide: false, colour: false };
pub(super) const WIDE: Look = Look { wide: true, colour: false };

pub(super) fn diagnosis() -> Diagnosis {
    let check = |name: &str, verdict, detail: &str, fix: Option<&str>| Check {
        name: name.into(),
        verdict,
        detail: detail.into(),
        fix: fix.map(str::to_owned),
    };
    Diagnosis {
        schema: SCHEMA,
        checks: vec![
            check("kernel types", Verdict::Ok, "/sys/kernel/btf/vmlinux", None),
            check(
                "BPF file system",
                Verdict::Missing,
                "/sys/fs/bpf is not mounted",
                Some("mount -t bpf bpf /sys/fs/bpf"),
            ),
            check("capabilities", Verdict::Unknown, "/proc is hidden", Some("mount /proc")),
        ],
    }
}
