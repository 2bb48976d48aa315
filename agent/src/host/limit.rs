//! Limits of what a process may use, as the kernel writes and takes them (`getrlimit(2)`).

pub use agent_terms::{Limit, Resource};

/// A line of `/proc/PID/limits`; nothing for the heading and for resources of later kernels.
pub(super) fn parse(line: &str) -> Option<Limit> {
    let (resource, rest) = Resource::ALL
        .iter()
        .find_map(|resource| Some((*resource, line.strip_prefix(title(*resource))?)))?;
    let mut values = rest.split_ascii_whitespace().map(|value| match value {
        "unlimited" => Some(None),
        number => number.parse().ok().map(Some),
    });
    Some(Limit { resource, soft: values.next()??, hard: values.next()?? })
}

/// How `/proc/PID/limits` names it (`fs/proc/base.c`).
fn title(resource: Resource) -> &'static str {
    match resource {
        Resource::Cpu => "Max cpu time",
        Resource::Fsize => "Max file size",
        Resource::Data => "Max data size",
        Resource::Stack => "Max stack size",
        Resource::Core => "Max core file size",
        Resource::Rss => "Max resident set",
        Resource::Nproc => "Max processes",
        Resource::Nofile => "Max open files",
        Resource::Memlock => "Max locked memory",
        Resource::As => "Max address space",
        Resource::Locks => "Max file locks",
        Resource::Sigpending => "Max pending signals",
        Resource::Msgqueue => "Max msgqueue size",
        Resource::Nice => "Max nice priority",
        Resource::Rtprio => "Max realtime priority",
        Resource::Rttime => "Max realtime timeout",
    }
}

/// The number that `setrlimit` takes.
pub(super) fn to_rustix(resource: Resource) -> rustix::process::Resource {
    use rustix::process::Resource as Kernel;
    match resource {
        Resource::Cpu => Kernel::Cpu,
        Resource::Fsize => Kernel::Fsize,
        Resource::Data => Kernel::Data,
        Resource::Stack => Kernel::Stack,
        Resource::Core => Kernel::Core,
        Resource::Rss => Kernel::Rss,
        Resource::Nproc => Kernel::Nproc,
        Resource::Nofile => Kernel::Nofile,
        Resource::Memlock => Kernel::Memlock,
        Resource::As => Kernel::As,
        Resource::Locks => Kernel::Locks,
        Resource::Sigpending => Kernel::Sigpending,
        Resource::Msgqueue => Kernel::Msgqueue,
        Resource::Nice => Kernel::Nice,
        Resource::Rtprio => Kernel::Rtprio,
        Resource::Rttime => Kernel::Rttime,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_the_kernel_writes_them() {
        let line = "Max open files            1024                 unlimited            files     ";
        let limit = Limit { resource: Resource::Nofile, soft: Some(1024), hard: None };
        assert_eq!(parse(line), Some(limit));
        for line in
            ["Limit                     Soft Limit", "Max open files", "Max open files  many 4", ""]
        {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}
