//! The copy of the primary's listener sets that a service's steering value carries.
//!
//! It spares the kernel a hash lookup for nearly every connection, and changes with the switch, as it is in the same value.
//!
//! INVARIANT: a set in the copy is the one that `LISTENER_SETS` has. The slots of a set that was replaced or removed may
//! be given to any other generation, of another service too, and a copy that still named them would lead there. So a copy
//! goes before a set of the primary does, and comes back after the new one is there. An agent that ends in between leaves
//! none, and then the kernel looks sets up.

use agent_ebpf::{
    flow::GenerationKey,
    steering::{ListenerSet, ListenerSetKey, PRIMARY_SETS, Steering},
};
use agent_terms::ServiceId;

use super::{Datapath, DatapathError};

impl Datapath {
    /// Writes a service's steering value, with the copy.
    pub(super) fn write_steering(
        &mut self,
        service: ServiceId,
        steering: Steering,
    ) -> Result<(), DatapathError> {
        let primary_sets = self.sets_to_copy(service, steering.primary)?;
        self.put_steering(service, Steering { primary_sets, ..steering })
    }

    /// Takes the copy away if it is of this generation, whose sets are about to change.
    pub(super) fn withdraw_primary_sets(
        &mut self,
        generation: GenerationKey,
    ) -> Result<(), DatapathError> {
        let none = [ListenerSet::default(); PRIMARY_SETS];
        match self.steering_to(generation)? {
            Some(steering) if steering.primary_sets != none => self.put_steering(
                ServiceId(generation.service),
                Steering { primary_sets: none, ..steering },
            ),
            Some(_) | None => Ok(()),
        }
    }

    /// Copies the sets of this generation if it is the primary.
    pub(super) fn renew_primary_sets(
        &mut self,
        generation: GenerationKey,
    ) -> Result<(), DatapathError> {
        match self.steering_to(generation)? {
            Some(steering) => self.write_steering(ServiceId(generation.service), steering),
            None => Ok(()),
        }
    }

    /// The steering value of a generation's service, if the generation is its primary.
    fn steering_to(&self, generation: GenerationKey) -> Result<Option<Steering>, DatapathError> {
        let steering = self.steering(ServiceId(generation.service))?;
        Ok(steering.filter(|steering| steering.primary == generation.generation))
    }

    pub(super) fn sets_to_copy(
        &self,
        service: ServiceId,
        generation: u32,
    ) -> Result<[ListenerSet; PRIMARY_SETS], DatapathError> {
        let mut sets = [ListenerSet::default(); PRIMARY_SETS];
        for (set, endpoint) in sets.iter_mut().zip(0..) {
            let key = ListenerSetKey { service: service.0, generation, endpoint };
            *set = self.listener_sets.get(key)?.unwrap_or_default();
        }
        Ok(sets)
    }

    pub(super) fn put_steering(
        &mut self,
        service: ServiceId,
        steering: Steering,
    ) -> Result<(), DatapathError> {
        self.services.put(service.0, steering)
    }
}
