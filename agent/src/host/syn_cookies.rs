//! Whether the kernel answers SYNs with cookies, as it does when a listener's queue of half-open requests overflows.

use std::{fs, io};

/// How many SYN cookies this network namespace has sent since it exists.
///
/// # Errors
///
/// When the kernel's counters cannot be read, or have another form than all kernels give them.
#[doc(alias = "TcpExtSyncookiesSent")]
pub fn sent() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/thread-self/net/netstat")?;
    counter(&text, "TcpExt:", "SyncookiesSent")
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no counter SyncookiesSent"))
}

/// The kernel writes two lines for each group: the counters' names, then their values.
pub(super) fn counter(text: &str, group: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|line| line.starts_with(group));
    let (names, values) = (lines.next()?, lines.next()?);
    let place = names.split_whitespace().position(|it| it == name)?;
    values.split_whitespace().nth(place)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_found_by_its_name_in_its_group() {
        let text = "TcpExt: A B C\nTcpExt: 1 2 3\nIpExt: B\nIpExt: 9\n";
        assert_eq!(counter(text, "TcpExt:", "B"), Some(2));
        assert_eq!(counter(text, "IpExt:", "B"), Some(9));
        assert_eq!(counter(text, "IpExt:", "C"), None);
    }

    #[test]
    fn this_kernel_counts_cookies() {
        sent().unwrap();
    }
}
