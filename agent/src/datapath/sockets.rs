//! Takes running sockets over and gives them back, through the `adopt_sockets` iterator.
//!
//! The agent never holds a descriptor of a server's socket: see `agent-ebpf/src/adopt_sockets.rs` for why.

use std::{
    collections::HashMap,
    io::{self, Read as _},
};

use agent_ebpf::{
    flow::{LISTENER, OPEN, Tag},
    socket::{ADOPT_FLOW, ADOPT_LISTENER, Adoption, DONE, MOVE_FLOW, NO_SLOT, NOT_SEEN, RELEASE},
};

use super::{
    Datapath, DatapathError,
    error::{self, Named as _},
};
use crate::service::{Endpoint, GenerationId, LocalAddress};

/// A listener of a generation, found by `sock_diag`.
#[derive(Clone, Debug)]
pub struct ListenerToAdopt {
    /// The kernel's number for the socket, never reused.
    pub cookie: u64,
    /// The public port that it is to serve, which need not be the one it is bound to.
    pub port: u16,
    /// The address that it is bound to.
    pub address: LocalAddress,
    /// Whether its port is to be shared with the next generation's listener.
    pub share: bool,
    /// Whether no socket map takes it: its Multipath TCP subflow is tagged, and reached by the kernel's own lookup only.
    pub multipath: bool,
}

/// What became of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdoptedListener {
    /// The listener.
    pub cookie: u64,
    /// Whether it can be assigned; if not, it is reached by the kernel's own lookup only.
    pub in_map: bool,
}

impl Datapath {
    /// Tags connections that were open before their listener was tagged, and counts them as opened, each at most once.
    ///
    /// # Errors
    ///
    /// When the sockets cannot be walked. A connection that ended meanwhile is no error.
    pub fn adopt_flows(
        &mut self,
        generation: GenerationId,
        cookies: &[u64],
        share: bool,
    ) -> Result<(), DatapathError> {
        let adoption = Adoption {
            action: ADOPT_FLOW,
            slot: NO_SLOT,
            share: share.into(),
            outcome: NOT_SEEN,
            tag: Tag { generation: generation.key(), role: OPEN, options_set: 0 },
        };
        self.walk(cookies.iter().map(|&cookie| (cookie, adoption)))?;
        Ok(())
    }

    /// Counts flows for this generation that carry the tag of another one, whose listener did not accept them.
    ///
    /// # Errors
    ///
    /// When the sockets cannot be walked. A connection that ended meanwhile is no error.
    pub fn move_flows(&mut self, to: GenerationId, cookies: &[u64]) -> Result<(), DatapathError> {
        let adoption = Adoption {
            action: MOVE_FLOW,
            slot: NO_SLOT,
            share: 0,
            outcome: NOT_SEEN,
            tag: Tag { generation: to.key(), role: OPEN, options_set: 0 },
        };
        self.walk(cookies.iter().map(|&cookie| (cookie, adoption)))?;
        Ok(())
    }

    /// Removes our tag from these sockets, and switches off what adopting them switched on.
    ///
    /// # Errors
    ///
    /// When the sockets cannot be walked. A socket that is gone is no error.
    pub fn release(&mut self, cookies: &[u64]) -> Result<(), DatapathError> {
        let nobody = Tag {
            generation: agent_ebpf::flow::GenerationKey { service: 0, generation: 0 },
            role: 0,
            options_set: 0,
        };
        let release =
            Adoption { action: RELEASE, slot: NO_SLOT, share: 0, outcome: NOT_SEEN, tag: nobody };
        self.walk(cookies.iter().map(|&cookie| (cookie, release)))?;
        Ok(())
    }

    /// Puts listeners into consecutive slots from `first` on.
    pub(super) fn place_listeners(
        &mut self,
        generation: GenerationId,
        first: u32,
        listeners: &[&ListenerToAdopt],
    ) -> Result<Vec<AdoptedListener>, DatapathError> {
        let outcomes = self.walk(listeners.iter().zip(first..).map(|(listener, slot)| {
            let adoption = Adoption {
                action: ADOPT_LISTENER,
                slot: if listener.multipath { NO_SLOT } else { slot },
                share: listener.share.into(),
                outcome: NOT_SEEN,
                tag: Tag { generation: generation.key(), role: LISTENER, options_set: 0 },
            };
            (listener.cookie, adoption)
        }))?;
        listeners
            .iter()
            .map(|listener| match outcomes.get(&listener.cookie) {
                Some(&DONE) => {
                    Ok(AdoptedListener { cookie: listener.cookie, in_map: !listener.multipath })
                }
                Some(&errno) if errno < 0 => {
                    Err(socket_error(listener.cookie, io::Error::from_raw_os_error(-errno)))
                }
                Some(_) | None => {
                    Err(socket_error(listener.cookie, io::ErrorKind::NotFound.into()))
                }
            })
            .collect()
    }

    /// Runs the iterator over all sockets once, and returns each one's outcome.
    fn walk(
        &mut self,
        wanted: impl IntoIterator<Item = (u64, Adoption)>,
    ) -> Result<HashMap<u64, i32>, DatapathError> {
        const MAP: &str = "ADOPTIONS";
        // An agent that was killed in its walk left its wishes behind. Done now, they would put a listener into a slot that
        // belongs to another generation by now.
        let left: Vec<u64> = self.adoptions.keys().collect::<Result<_, _>>().named("read", MAP)?;
        for cookie in left {
            error::gone(self.adoptions.remove(&cookie)).named("remove from", MAP)?;
        }
        let mut cookies = Vec::new();
        for (cookie, adoption) in wanted {
            self.adoptions.insert(cookie, adoption, 0).named("write", MAP)?;
            cookies.push(cookie);
        }
        if cookies.is_empty() {
            return Ok(HashMap::new());
        }
        let walked = self.kernel.iterate().and_then(|mut file| {
            // The program writes nothing: reading to the end runs it over every socket.
            let mut nothing = Vec::new();
            file.read_to_end(&mut nothing).map_err(DatapathError::Walk)
        });
        let mut outcomes = HashMap::new();
        for cookie in cookies {
            let adoption = self.adoptions.get(&cookie, 0).named("read", MAP)?;
            self.adoptions.remove(&cookie).named("remove from", MAP)?;
            outcomes.insert(cookie, adoption.outcome);
        }
        walked.map(|_| outcomes)
    }
}

/// The listeners for an endpoint: those on exactly its address, as in the kernel's own lookup, or else all that take its
/// connections.
pub(super) fn serving<'a>(
    endpoint: &Endpoint,
    listeners: &'a [ListenerToAdopt],
) -> Vec<&'a ListenerToAdopt> {
    let on_port = || listeners.iter().filter(|it| it.port == endpoint.port);
    let exact: Vec<_> = on_port().filter(|it| it.address == endpoint.address).collect();
    if exact.is_empty() {
        on_port().filter(|it| it.address.serves(endpoint.address)).collect()
    } else {
        exact
    }
}

const fn socket_error(cookie: u64, source: io::Error) -> DatapathError {
    DatapathError::Socket { cookie, source }
}
