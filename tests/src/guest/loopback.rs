//! The network of the machine, which is loopback alone.

use anyhow::{Context as _, Result, ensure};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

/// Brings loopback up, as `ip link set lo up` does where there is one.
pub(super) fn bring_up() -> Result<()> {
    let kernel = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        // The first of these protocols, for links and routes, which has the number 0.
        None,
    )
    .context("open a socket to the kernel's network")?;
    send(&kernel, &request(), SendFlags::empty()).context("bring loopback up")?;
    let mut answer = [0; 64];
    let (length, _) = recv(&kernel, &mut answer, RecvFlags::empty())?;
    let error = answer[..length].get(HEADER..HEADER + 4).context("the kernel's answer is short")?;
    ensure!(error == [0; 4], "loopback does not come up: the kernel answers {error:?}");
    Ok(())
}

/// `RTM_NEWLINK` with nothing but flags (`struct nlmsghdr`, `struct ifinfomsg`).
fn request() -> Vec<u8> {
    const NEW_LINK: u16 = 16;
    const REQUEST_AND_ACKNOWLEDGE: u16 = 1 | 4;
    const LENGTH: u32 = 32;
    const LOOPBACK: u32 = 1;
    const UP: u32 = 1;
    let mut bytes = LENGTH.to_ne_bytes().to_vec();
    bytes.extend(NEW_LINK.to_ne_bytes());
    bytes.extend(REQUEST_AND_ACKNOWLEDGE.to_ne_bytes());
    // Neither a number of the message nor one of the sender, nor a family and a kind of link.
    bytes.extend([0; 12]);
    bytes.extend(LOOPBACK.to_ne_bytes());
    // The flags, and which of them are meant.
    bytes.extend(UP.to_ne_bytes());
    bytes.extend(UP.to_ne_bytes());
    bytes
}

/// Of a message; the number of an error comes behind it.
const HEADER: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_is_as_long_as_it_says() {
        let request = request();
        assert_eq!(request[..4], u32::try_from(request.len()).unwrap().to_ne_bytes());
    }
}
