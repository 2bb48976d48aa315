//! The copy of the primary's listeners that steering carries never leads to a listener that is not the primary's.

use agent_ebpf::steering::{MAX_STANDBYS, Steering};
use anyhow::Result;
use tests::lookup::steered::{PORT, Steered, cookie, listener};

fn to(primary: u32, standby: u32) -> Steering {
    let mut standbys = [0; MAX_STANDBYS];
    standbys[0] = standby;
    Steering { primary, standbys, ..Steering::default() }
}

#[test]
fn a_connection_gets_the_primary_and_after_its_end_the_standby() -> Result<()> {
    let mut steered = Steered::new()?;
    let (first, second) = (listener()?, listener()?);
    steered.adopt(1, &[&first])?;
    steered.adopt(2, &[&second])?;
    assert_eq!(steered.look_up(PORT, 1)?.listener, 0, "nobody before steering");
    steered.steer(&to(1, 2))?;
    assert_eq!(steered.look_up(PORT, 1)?.listener, cookie(&first)?);
    assert_eq!(steered.look_up(PORT + 1, 1)?.listener, 0, "not ours");
    steered.steer(&to(2, 1))?;
    assert_eq!(steered.look_up(PORT, 1)?.listener, cookie(&second)?);
    drop(second);
    assert_eq!(steered.look_up(PORT, 1)?.listener, cookie(&first)?);
    Ok(())
}

#[test]
fn steering_that_comes_before_its_listeners_is_completed_with_them() -> Result<()> {
    let mut steered = Steered::new()?;
    let only = listener()?;
    steered.steer(&to(1, 0))?;
    assert_eq!(steered.steering()?.primary_sets[0].count, 0);
    steered.adopt(1, &[&only])?;
    assert_eq!(steered.steering()?.primary_sets[0].count, 1);
    assert_eq!(steered.look_up(PORT, 1)?.listener, cookie(&only)?);
    Ok(())
}

#[test]
fn the_slot_of_a_primary_that_was_forgotten_leads_nobody_to_its_next_owner() -> Result<()> {
    let mut steered = Steered::new()?;
    let (first, other) = (listener()?, listener()?);
    steered.adopt(1, &[&first])?;
    steered.steer(&to(1, 0))?;
    let slot = steered.steering()?.primary_sets[0].first;
    steered.forget(1)?;
    steered.adopt(2, &[&other])?;
    assert_eq!(steered.look_up(PORT, 1)?.listener, 0);
    steered.steer(&to(2, 0))?;
    assert_eq!(steered.steering()?.primary_sets[0].first, slot, "it got another slot");
    Ok(())
}

#[test]
fn the_slot_of_a_primary_that_an_agent_does_not_know_leads_nobody_to_its_next_owner() -> Result<()>
{
    let mut steered = Steered::new()?;
    let (first, known, other) = (listener()?, listener()?, listener()?);
    steered.adopt(1, &[&first])?;
    steered.adopt(2, &[&known])?;
    steered.steer(&to(1, 0))?;
    let slot = steered.steering()?.primary_sets[0].first;
    steered.keep_only(2)?;
    steered.adopt(3, &[&other])?;
    assert_eq!(steered.look_up(PORT, 1)?.listener, 0);
    steered.steer(&to(3, 0))?;
    assert_eq!(steered.steering()?.primary_sets[0].first, slot, "it got another slot");
    Ok(())
}

#[test]
fn the_slot_that_a_primary_had_before_leads_nobody_to_its_next_owner() -> Result<()> {
    let mut steered = Steered::new()?;
    let (first, again, other) = (listener()?, listener()?, listener()?);
    steered.adopt(1, &[&first])?;
    steered.steer(&to(1, 0))?;
    let slot = steered.steering()?.primary_sets[0].first;
    steered.adopt(1, &[&again])?;
    steered.adopt(2, &[&other])?;
    assert_eq!(steered.look_up(PORT, 1)?.listener, cookie(&again)?);
    steered.steer(&to(2, 0))?;
    assert_eq!(steered.steering()?.primary_sets[0].first, slot, "it got another slot");
    Ok(())
}

/// Workers that died while no agent ran keep their slots.
#[test]
fn few_living_listeners_among_many_dead_ones_get_every_connection() -> Result<()> {
    let mut steered = Steered::new()?;
    let mut listeners = (0..40).map(|_| listener()).collect::<Result<Vec<_>>>()?;
    steered.adopt(1, &listeners.iter().collect::<Vec<_>>())?;
    steered.steer(&to(1, 0))?;
    listeners.drain(..34);
    for port in 0..200 {
        assert_ne!(steered.look_up_from(40_000 + port)?.listener, 0, "from port {port}");
    }
    Ok(())
}
