//! Takes open connections over and gives them back, through the program `adopt_flow`.

use std::net::{IpAddr, SocketAddr};

use agent_ebpf::{
    flow::GenerationKey,
    socket::{ADOPT, DONE, FlowRequest, MOVE, NOT_SEEN, RELEASE},
};
use agent_terms::GenerationId;

use super::{Datapath, DatapathError};

/// By what a connection is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowAddress {
    /// Our end.
    pub local: SocketAddr,
    /// The client's.
    pub remote: SocketAddr,
    /// The interface that its socket is bound to, or zero.
    pub interface: u32,
}

impl Datapath {
    /// Tags connections that were open before their listener was tagged, and counts them as opened, each at most once.
    ///
    /// # Errors
    ///
    /// When the program cannot be run, or has no memory. A connection that ended meanwhile is no error.
    pub fn adopt_flows(
        &self,
        generation: GenerationId,
        flows: impl IntoIterator<Item = FlowAddress>,
    ) -> Result<(), DatapathError> {
        self.for_each_flow(ADOPT, generation.key(), flows)
    }

    /// Counts flows for this generation that carry the tag of another one, whose listener did not accept them.
    ///
    /// # Errors
    ///
    /// When the program cannot be run. A connection that ended meanwhile is no error.
    pub fn move_flows(
        &self,
        to: GenerationId,
        flows: impl IntoIterator<Item = FlowAddress>,
    ) -> Result<(), DatapathError> {
        self.for_each_flow(MOVE, to.key(), flows)
    }

    /// Removes our tag from these flows.
    ///
    /// # Errors
    ///
    /// When the program cannot be run. A connection that ended meanwhile is no error.
    pub fn release_flows(
        &self,
        flows: impl IntoIterator<Item = FlowAddress>,
    ) -> Result<(), DatapathError> {
        self.for_each_flow(RELEASE, GenerationKey { service: 0, generation: 0 }, flows)
    }

    fn for_each_flow(
        &self,
        action: u32,
        generation: GenerationKey,
        flows: impl IntoIterator<Item = FlowAddress>,
    ) -> Result<(), DatapathError> {
        for flow in flows {
            let request = flow.request(action, generation);
            match self.kernel.run_on_flow(&request, flow.interface)? {
                DONE | NOT_SEEN => {}
                errno => {
                    let source = std::io::Error::from_raw_os_error(-errno);
                    return Err(DatapathError::Flow { remote: flow.remote, source });
                }
            }
        }
        Ok(())
    }
}

impl FlowAddress {
    /// A connection of IPv4 clients to an IPv6 listener is one of IPv4 to the kernel's table.
    fn request(&self, action: u32, generation: GenerationKey) -> FlowRequest {
        let (remote, local) = (self.remote.ip().to_canonical(), self.local.ip().to_canonical());
        let mut parts = octets(remote);
        parts.extend(octets(local));
        parts.extend(self.remote.port().to_be_bytes());
        parts.extend(self.local.port().to_be_bytes());
        let mut tuple = [0; 36];
        tuple[..parts.len()].copy_from_slice(&parts);
        FlowRequest { header: [0; 16], action, is_ipv4: local.is_ipv4().into(), generation, tuple }
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_address_is_asked_for_as_ipv4_with_the_client_first() {
        let flow = FlowAddress {
            local: "[::ffff:127.0.0.1]:80".parse().unwrap(),
            remote: "[::ffff:10.0.0.2]:258".parse().unwrap(),
            interface: 0,
        };
        let request = flow.request(ADOPT, GenerationKey { service: 1, generation: 2 });
        assert_eq!(request.is_ipv4, 1);
        assert_eq!(request.tuple[..12], [10, 0, 0, 2, 127, 0, 0, 1, 1, 2, 0, 80]);
    }
}
