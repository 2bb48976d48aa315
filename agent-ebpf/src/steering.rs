//! Which generation gets a new connection: the one decision that all programs share.
//!
//! Pure functions of what the maps hold and of the client's address, so that they run (and are tested) in user space too.

/// How many generations besides the primary and the candidate the kernel may fall back to.
pub const MAX_STANDBYS: usize = 8;

/// How many generations one connection may be offered to.
pub const MAX_RANKS: usize = MAX_STANDBYS + 2;

/// How many listeners of one generation are tried before the next generation's turn: those of workers that died while no
/// agent runs keep their slots.
pub const MAX_TRIES: u32 = 64;

/// Of how many endpoints of a service its steering value has the primary's listeners. Few services have more.
pub const PRIMARY_SETS: usize = 4;

/// Generation numbers start at 1.
pub const NO_GENERATION: u32 = 0;

/// The whole of a candidate's share: every new connection.
pub const FULL_SHARE: u32 = 1 << 16;

/// Value of `SERVICES`: where new connections of a service go.
///
/// The map is a hash on purpose: the kernel replaces a hash element as a whole under RCU
/// (`htab_map_update_elem`), so that one update switches every port of the service at once and no reader sees half.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Steering {
    /// Takes new flows.
    pub primary: u32,
    /// Takes `share` of the new flows while it is being introduced, or [`NO_GENERATION`].
    pub candidate: u32,
    /// The candidate's part of [`FULL_SHARE`].
    pub share: u32,
    /// Makes the set of clients that the candidate gets a different one in each rollout.
    pub salt: u32,
    /// Gets the probes and nothing else, or [`NO_GENERATION`].
    pub probe_generation: u32,
    /// The port that probes come from; zero while there are none.
    pub probe_port: u32,
    /// Live generations to fall back to, in this order.
    pub standbys: [u32; MAX_STANDBYS],
    /// A copy of the primary's entries in `LISTENER_SETS`, by the endpoint's number, which saves nearly every connection a
    /// hash lookup. All zero where there is none.
    pub primary_sets: [ListenerSet; PRIMARY_SETS],
}

impl Steering {
    /// The generation to try at `rank`, where rank 0 is the one that steering means; [`NO_GENERATION`] if there is none.
    ///
    /// Deterministic for one client: the acknowledgement of a SYN cookie must reach the listener that sent the cookie.
    #[inline(always)]
    pub const fn choice(&self, rank: usize, client: u32) -> u32 {
        let candidate_first = self.prefers_candidate(client);
        match rank {
            0 if candidate_first => self.candidate,
            0 => self.primary,
            1 if candidate_first => self.primary,
            1 => self.candidate,
            _ if rank < MAX_RANKS => self.standbys[rank - 2],
            _ => NO_GENERATION,
        }
    }

    /// Whether a connection is a probe: it comes from the port that the agent has to itself, and from the very address that it
    /// goes to. From the wire no such packet arrives: the kernel drops those that claim to come from its own address.
    #[inline(always)]
    pub const fn is_probe(&self, remote_port: u16, same_address: bool) -> bool {
        self.probe_port != 0 && self.probe_port == remote_port as u32 && same_address
    }

    /// The listeners of the generation that takes this client's connections, if they are at hand: without one in
    /// `LISTENER_SETS` being looked up.
    #[inline(always)]
    pub fn at_hand(&self, endpoint: u32, client: u32) -> Option<ListenerSet> {
        let set = *self.primary_sets.get(endpoint as usize)?;
        (set.count != PLAIN && !self.prefers_candidate(client)).then_some(set)
    }

    /// Whether the client with this address hash belongs to the candidate's share.
    #[inline(always)]
    pub const fn prefers_candidate(&self, client: u32) -> bool {
        self.candidate != NO_GENERATION && mix(client, self.salt) % FULL_SHARE < self.share
    }
}

/// Key of `LISTENER_SETS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerSetKey {
    /// The service.
    pub service: u32,
    /// The generation within the service.
    pub generation: u32,
    /// The endpoint within the service.
    pub endpoint: u32,
}

/// Value of `LISTENER_SETS`: the listeners of one generation on one endpoint.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListenerSet {
    /// First slot in `LISTENERS`.
    pub first: u32,
    /// Number of consecutive slots; [`PLAIN`] for a generation that only the kernel's own lookup reaches.
    pub count: u32,
}

/// Marks a set whose listener no socket map takes (Multipath TCP): steering to it means passing the packet on.
pub const PLAIN: u32 = 0;

impl ListenerSet {
    /// The slot of the try with this number (less than `count`), spread evenly by the hash of the flow.
    ///
    /// The hash is taken as a fraction of one and multiplied: a division would take longer than the rest of it.
    #[inline(always)]
    pub const fn slot(&self, spread: u32, attempt: u32) -> u32 {
        let place = ((spread as u64 * self.count as u64) >> u32::BITS) as u32 + attempt;
        self.first + if place < self.count { place } else { place - self.count }
    }
}

/// Value of `STEERED`: what became of the lookups for one service and of its unaccepted connections, per CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SteerCounts {
    /// Given to the generation that steering meant.
    pub steered: u64,
    /// Passed to the kernel's own lookup because the chosen generation is reached that way.
    pub plain: u64,
    /// Given to another generation, because no listener of the one that steering meant was left.
    pub fallback: u64,
    /// Passed to the kernel's own lookup because no generation had a listener.
    pub unreached: u64,
    /// When a fallback was last reported, in nanoseconds of the monotonic clock.
    pub reported_at: u64,
    /// Connections that nobody had accepted when their listener closed, and that another listener took over.
    pub moved: u64,
    /// Of such connections, those that no listener of ours could take over.
    pub stranded: u64,
    /// When a move was last reported, in nanoseconds of the monotonic clock.
    pub move_reported_at: u64,
}

/// Mixes two words into a hash whose low bits are usable (the finaliser of MurmurHash3).
#[inline(always)]
pub const fn mix(value: u32, salt: u32) -> u32 {
    let mut hash = value ^ salt;
    hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}

const _: () = assert!(size_of::<Steering>() == 88);
const _: () = assert!(size_of::<ListenerSetKey>() == 12);
const _: () = assert!(size_of::<ListenerSet>() == 8);
const _: () = assert!(size_of::<SteerCounts>() == 64);

#[cfg(test)]
mod tests {
    use super::*;

    const STEERING: Steering = Steering {
        primary: 1,
        candidate: 2,
        share: FULL_SHARE / 4,
        salt: 7,
        probe_generation: 4,
        probe_port: 50_000,
        standbys: [3, 0, 0, 0, 0, 0, 0, 0],
        primary_sets: [
            ListenerSet { first: 5, count: 2 },
            ListenerSet { first: 9, count: PLAIN },
            ListenerSet { first: 0, count: 0 },
            ListenerSet { first: 0, count: 0 },
        ],
    };

    #[test]
    fn every_generation_is_offered_once_whoever_is_first() {
        for client in 0..1000 {
            let mut offered = [0, 1, 2].map(|rank| STEERING.choice(rank, client));
            offered.sort_unstable();
            assert_eq!(offered, [1, 2, 3]);
            assert_eq!(STEERING.choice(MAX_RANKS, client), NO_GENERATION);
        }
    }

    #[test]
    fn the_candidate_gets_its_share_of_clients() {
        let chosen = (0..100_000).filter(|&client| STEERING.prefers_candidate(client)).count();
        assert!((24_000..26_000).contains(&chosen), "{chosen} of 100000 for a share of a quarter");
    }

    #[test]
    fn full_and_no_share_are_exact() {
        let full = Steering { share: FULL_SHARE, ..STEERING };
        let none = Steering { share: 0, ..STEERING };
        for client in 0..10_000 {
            assert!(full.prefers_candidate(client));
            assert!(!none.prefers_candidate(client));
        }
    }

    #[test]
    fn only_the_primary_is_at_hand() {
        for client in 0..1000 {
            let primary = (STEERING.choice(0, client) == STEERING.primary)
                .then_some(ListenerSet { first: 5, count: 2 });
            assert_eq!(STEERING.at_hand(0, client), primary);
            // A plain one, one that is not there, and one that there is no place for.
            assert_eq!([1, 2, 99].map(|endpoint| STEERING.at_hand(endpoint, client)), [None; 3]);
        }
    }

    #[test]
    fn only_the_agents_own_port_at_the_same_address_is_a_probe() {
        assert!(STEERING.is_probe(50_000, true));
        assert!(!STEERING.is_probe(50_000, false));
        assert!(!STEERING.is_probe(50_001, true));
        let none = Steering { probe_port: 0, ..STEERING };
        assert!(!none.is_probe(0, true), "port 0 is nobody's");
    }

    #[test]
    fn connections_are_spread_evenly() {
        let set = ListenerSet { first: 10, count: 3 };
        let mut taken = [0_u32; 3];
        for client in 0..30_000 {
            taken[set.slot(mix(client, 40_000), 0) as usize - 10] += 1;
        }
        assert!(taken.iter().all(|count| (9_500..10_500).contains(count)), "{taken:?}");
    }

    #[test]
    fn tries_walk_all_slots_of_a_set() {
        let set = ListenerSet { first: 10, count: 3 };
        let mut slots = [0, 1, 2].map(|attempt| set.slot(u32::MAX, attempt));
        slots.sort_unstable();
        assert_eq!(slots, [10, 11, 12]);
    }
}
