//! Whether this host can connect to itself: what goes to one of its own addresses goes through the loopback interface.

use nix::{ifaddrs::getifaddrs, net::if_::InterfaceFlags};

/// What to do where it is down.
pub const FIX: &str = "ip link set lo up";

/// Whether the loopback interface of our network namespace is known to be down, as it is in a new namespace.
pub fn is_down() -> bool {
    let Ok(interfaces) = getifaddrs() else { return false };
    let mut loopback = interfaces.filter(|it| it.flags.contains(InterfaceFlags::IFF_LOOPBACK));
    loopback.next().is_some_and(|it| !it.flags.contains(InterfaceFlags::IFF_UP))
}
