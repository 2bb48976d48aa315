//! Writes again, into maps that are used as they are, what somebody may have changed in them.
//!
//! The kernel does not show what is in a socket map (`sock_map_lookup_sys` refuses values of four bytes). So listeners are put
//! in again where they should be, which changes nothing where they are: at no time is a slot empty that was not.

use std::collections::{BTreeMap, HashSet};

use agent_ebpf::steering::{ListenerSet, NO_GENERATION, PLAIN, Steering};
use agent_terms::{Endpoint, GenerationId, ServiceId};

use super::{
    Datapath, DatapathError, ListenerToAdopt, endpoints, listeners::serving, slots,
    tables::listener_set_key,
};

/// Listeners for consecutive slots.
type Places<'a> = Vec<(u32, Vec<&'a ListenerToAdopt>)>;

impl Datapath {
    /// Whether the kernel asks us for exactly these endpoints.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn has_endpoints<'a>(
        &self,
        services: impl IntoIterator<Item = (ServiceId, &'a [Endpoint])>,
    ) -> Result<bool, DatapathError> {
        let present: BTreeMap<_, _> = self.endpoints.all()?;
        Ok(present == endpoints::entries(services))
    }

    /// Puts a generation's listeners into their slots again. Answers whether what the maps say of the slots made sense; if not,
    /// nothing was done.
    ///
    /// # Errors
    ///
    /// When the kernel refuses. A listener that was closed meanwhile is no error.
    pub fn place_again(
        &mut self,
        generation: GenerationId,
        endpoints: &[Endpoint],
        listeners: &[ListenerToAdopt],
    ) -> Result<bool, DatapathError> {
        let Some(places) = self.places(generation, endpoints, listeners)? else { return Ok(false) };
        // A walk asks for each listener once; one that serves several endpoints has several slots.
        let mut left = places;
        while !left.is_empty() {
            let mut asked = HashSet::new();
            let (now, later) = left.into_iter().partition(|(_, serving): &(u32, Vec<_>)| {
                let is_free =
                    serving.iter().all(|it: &&ListenerToAdopt| !asked.contains(&it.cookie));
                if is_free {
                    asked.extend(serving.iter().map(|it| it.cookie));
                }
                is_free
            });
            self.put_into_slots(generation, &now)?;
            left = later;
        }
        Ok(true)
    }

    /// Where a generation's listeners should be by the maps, unless those contradict themselves or what is known.
    fn places<'a>(
        &self,
        generation: GenerationId,
        endpoints: &[Endpoint],
        listeners: &'a [ListenerToAdopt],
    ) -> Result<Option<Places<'a>>, DatapathError> {
        let sets = self.sets()?;
        let mut places = Vec::new();
        for endpoint in endpoints {
            let serving = serving(endpoint, listeners);
            if serving.is_empty() {
                continue;
            }
            let key = listener_set_key(generation, endpoint);
            let others = sets.iter().filter(|(other, _)| **other != key).map(|(_, set)| set);
            let is_plain = serving.iter().any(|it| it.multipath);
            match sets.get(&key) {
                Some(set) if is_plain && set.count == PLAIN => {}
                Some(set)
                    if !is_plain && fits(*set, serving.len()) && slots::is_apart(*set, others) =>
                {
                    places.push((set.first, serving));
                }
                Some(_) | None => return Ok(None),
            }
        }
        Ok(Some(places))
    }

    fn put_into_slots(
        &mut self,
        generation: GenerationId,
        places: &Places<'_>,
    ) -> Result<(), DatapathError> {
        let slots = places.iter().flat_map(|(first, serving)| (*first..).zip(serving));
        let slots: Vec<_> = slots.map(|(slot, listener)| (*listener, slot)).collect();
        for outcome in self.place_in(generation, slots)? {
            match outcome {
                Err(error) if !error.is_about_closed_socket() && !error.is_about_unfit_socket() => {
                    return Err(error);
                }
                Ok(_) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// Makes a service's steering value say nothing but who the primary and the standbys are, as it does but for moments, with
    /// the right copy of the primary's sets. Answers whether it did.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn tidy_steering(&mut self, service: ServiceId) -> Result<bool, DatapathError> {
        let Some(found) = self.steering(service)? else { return Ok(true) };
        let meant = Steering { candidate: NO_GENERATION, share: 0, salt: 0, ..found };
        let primary_sets = self.sets_to_copy(service, meant.primary)?;
        // An agent that is killed while it changes a set leaves no copy.
        let is_copy = found.primary_sets == primary_sets
            || found.primary_sets.iter().all(|set| *set == ListenerSet::default());
        let was_tidy = is_copy && meant == found;
        self.put_steering(service, Steering { primary_sets, ..meant })?;
        Ok(was_tidy)
    }

    /// Remembers the public port of a listener whose bind was moved, unless it is known.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn note_moved(&mut self, cookie: u64, public: u16) -> Result<(), DatapathError> {
        let known = self.moved_binds.get(cookie)?;
        match known == Some(u32::from(public)) {
            true => Ok(()),
            false => self.moved_binds.put(cookie, u32::from(public)),
        }
    }
}

/// Whether so many listeners have a place in a set. Some may have been closed since it was made.
const fn fits(set: ListenerSet, listeners: usize) -> bool {
    set.count as usize >= listeners
}
