//! Takes running listeners over and gives them back, through the `adopt_listeners` iterator.
//!
//! The agent never holds a descriptor of a server's socket: see `agent-ebpf/programs/adopt_listeners.rs` for why.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read as _},
};

use agent_ebpf::{
    flow::{GenerationKey, LISTENER, Tag},
    socket::{ADOPT, Adoption, DONE, EXAMINE, HAS_PROGRAM, NO_SLOT, NOT_SEEN, RELEASE},
};
use agent_terms::{Endpoint, GenerationId, LocalAddress};
use aya::programs::ProgramError;
use nix::libc::{EDEADLK, EOPNOTSUPP};

use super::{Datapath, DatapathError, error, programs::MIGRATE};

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

/// Listeners, by who has given their reuseport group the program that chooses among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WithProgram {
    /// An agent: it is `migrate`.
    pub ours: Vec<u64>,
    /// Their server.
    pub own: Vec<u64>,
}

impl Datapath {
    /// Removes our tag from these listeners, and switches off what adopting them switched on.
    ///
    /// # Errors
    ///
    /// When the sockets cannot be walked. A listener that is gone is no error, but has all sockets walked.
    pub fn release_listeners(&mut self, cookies: &[u64]) -> Result<(), DatapathError> {
        let release =
            Adoption { action: RELEASE, slot: NO_SLOT, share: 0, outcome: NOT_SEEN, tag: NOBODY };
        self.walk(cookies.iter().map(|&cookie| (cookie, release)))?;
        Ok(())
    }

    /// Those of these listeners whose reuseport group has a program, by whose it is.
    ///
    /// # Errors
    ///
    /// When the sockets cannot be walked.
    pub fn with_program(&mut self, cookies: &[u64]) -> Result<WithProgram, DatapathError> {
        let examine =
            Adoption { action: EXAMINE, slot: NO_SLOT, share: 0, outcome: NOT_SEEN, tag: NOBODY };
        let found = self.walk(cookies.iter().map(|&cookie| (cookie, examine)))?;
        let programs = cookies.iter().filter_map(|cookie| {
            let seen = found.get(cookie).filter(|it| it.outcome == HAS_PROGRAM)?;
            Some((*cookie, seen.slot))
        });
        let programs: Vec<_> = programs.collect();
        let mut with_program = WithProgram::default();
        for (cookie, program) in programs {
            match self.is_migrate(program)? {
                true => with_program.ours.push(cookie),
                false => with_program.own.push(cookie),
            }
        }
        Ok(with_program)
    }

    /// Whether this is an agent's program, ours or an earlier one's: a group keeps it as long as one of its sockets lives. One
    /// of the classic kind has no number. To ask takes three calls for each program of the machine, and the kernel gives no
    /// number a second time before it has given two thousand million others (`idr_alloc_cyclic`).
    fn is_migrate(&mut self, program: u32) -> Result<bool, DatapathError> {
        if program == 0 || self.migrate_numbers.contains(&program) {
            return Ok(program != 0);
        }
        for other in aya::programs::loaded_programs() {
            match other {
                Ok(it) if it.id() == program && it.name_as_str() == Some(MIGRATE) => {
                    self.migrate_numbers.insert(program);
                    return Ok(true);
                }
                Err(error) if !is_gone(&error) => {
                    return Err(error::program_error("look for", MIGRATE)(error));
                }
                Ok(_) | Err(_) => {}
            }
        }
        Ok(false)
    }

    /// Puts listeners into consecutive slots from `first` on.
    pub(super) fn place_listeners(
        &mut self,
        generation: GenerationId,
        first: u32,
        listeners: &[&ListenerToAdopt],
    ) -> Result<Vec<AdoptedListener>, DatapathError> {
        let slots = listeners.iter().copied().zip(first..).collect();
        self.place_in(generation, slots)?.into_iter().collect()
    }

    /// Puts each of these listeners, no two of which are the same, into its slot. Answers for each what became of it.
    pub(super) fn place_in(
        &mut self,
        generation: GenerationId,
        slots: Vec<(&ListenerToAdopt, u32)>,
    ) -> Result<Vec<Result<AdoptedListener, DatapathError>>, DatapathError> {
        let outcomes = self.walk(slots.iter().map(|(listener, slot)| {
            let adoption = Adoption {
                action: ADOPT,
                slot: if listener.multipath { NO_SLOT } else { *slot },
                share: listener.share.into(),
                outcome: NOT_SEEN,
                tag: Tag { generation: generation.key(), role: LISTENER, options_set: 0 },
            };
            (listener.cookie, adoption)
        }))?;
        let outcome_of = |(listener, _): (&ListenerToAdopt, u32)| {
            let cookie = listener.cookie;
            match outcomes.get(&cookie).map(|it| it.outcome) {
                Some(DONE) => Ok(AdoptedListener { cookie, in_map: !listener.multipath }),
                // It must not touch a listener there.
                Some(errno) if errno == -EDEADLK => Err(DatapathError::Deadlock),
                Some(errno) if errno == -EOPNOTSUPP => Err(DatapathError::WasConnection { cookie }),
                Some(errno) if errno < 0 => {
                    Err(socket_error(cookie, io::Error::from_raw_os_error(-errno)))
                }
                Some(_) | None => Err(socket_error(cookie, io::ErrorKind::NotFound.into())),
            }
        };
        Ok(slots.into_iter().map(outcome_of).collect())
    }

    /// Runs the iterator until it has met every wanted listener, or all sockets once, and returns what became of each.
    ///
    /// # Kernel
    ///
    /// Listeners come first, and the walk is to end with them: see `agent-ebpf/programs/adopt_listeners.rs`.
    fn walk(
        &mut self,
        wanted: impl IntoIterator<Item = (u64, Adoption)>,
    ) -> Result<HashMap<u64, Adoption>, DatapathError> {
        // An agent that was killed in its walk left its wishes behind. Done now, they would put a listener into a slot that
        // belongs to another generation by now.
        for cookie in self.adoptions.keys()? {
            self.adoptions.remove(cookie)?;
        }
        let mut cookies = Vec::new();
        for (cookie, adoption) in wanted {
            self.adoptions.put(cookie, adoption)?;
            cookies.push(cookie);
        }
        if cookies.is_empty() {
            return Ok(HashMap::new());
        }
        let walked = self.kernel.iterate().and_then(|file| walk_to(file, cookies.len()));
        let mut outcomes = HashMap::new();
        for cookie in cookies {
            outcomes.extend(self.adoptions.get(cookie)?.map(|adoption| (cookie, adoption)));
            self.adoptions.remove(cookie)?;
        }
        walked.map(|()| outcomes)
    }
}

/// Whether a program was unloaded meanwhile.
fn is_gone(error: &ProgramError) -> bool {
    matches!(error, ProgramError::SyscallError(error) if error.io_error.kind() == io::ErrorKind::NotFound)
}

/// For wishes that give no tag.
const NOBODY: Tag =
    Tag { generation: GenerationKey { service: 0, generation: 0 }, role: 0, options_set: 0 };

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

/// Reads until the program has met so many wanted sockets: it writes a byte for each.
fn walk_to(mut file: File, wanted: usize) -> Result<(), DatapathError> {
    let mut met = vec![0; wanted];
    let mut left = &mut met[..];
    while !left.is_empty() {
        match file.read(left) {
            // Some have gone meanwhile.
            Ok(0) => return Ok(()),
            Ok(count) => left = &mut left[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(DatapathError::Walk(error)),
        }
    }
    Ok(())
}

const fn socket_error(cookie: u64, source: io::Error) -> DatapathError {
    DatapathError::Socket { cookie, source }
}
