//! Pins that somebody replaced, emptied or put others beside are not believed: the next agent builds them anew from the state.
//!
//! Generation 2 serves and generation 1 drains all the while, under load: nobody may notice, and the one that should serve
//! does after the start. What is put in the place of a pin comes from another agent, so that nothing but whose it is tells it
//! from ours; and that agent must not notice either.

mod damage;
mod scene;

use agent::datapath::{ATTACHED, COMFORTS, MAPS};
use anyhow::Result;

use self::damage::{Damage, Pin};
use self::scene::Scene;

fn links() -> impl Iterator<Item = &'static str> {
    ATTACHED.into_iter().chain(COMFORTS)
}

fn pins() -> impl Iterator<Item = Pin> {
    MAPS.into_iter().map(Pin::Map).chain(links().map(Pin::Link))
}

/// Maps that no program works on but for moments, in which the agent fills them: whichever it is makes no difference.
const FOR_MOMENTS: [&str; 2] = ["ADOPTIONS", "ENLISTMENTS"];

/// Each pin by itself, in every way: to look is enough, and takes no start.
#[test]
fn no_pin_is_believed_for_its_name() -> Result<()> {
    let damages = [
        Damage::Removed,
        Damage::Twin,
        Damage::OtherMap,
        Damage::OwnMap,
        Damage::OwnLink,
        Damage::Program,
        Damage::Directory,
        Damage::Symlink,
        Damage::Open,
        Damage::Foreign,
    ];
    let mut scene = Scene::new()?;
    scene.kill()?;
    for pin in pins() {
        for damage in damages.into_iter().filter(|damage| matters(pin, *damage)) {
            scene.is_noticed(pin, damage)?;
        }
    }
    for beside in ["maps/somebody", "links/somebody", "somebody", "links/steer-old"] {
        scene.is_noticed(Pin::Beside(beside), Damage::OtherMap)?;
        scene.is_noticed(Pin::Beside(beside), Damage::Directory)?;
    }
    for place in [Pin::Maps, Pin::Links, Pin::Version] {
        for damage in [Damage::OtherMap, Damage::Symlink, Damage::Foreign, Damage::Open] {
            scene.is_noticed(place, damage)?;
        }
    }
    scene.revive()
}

/// Some kernels do without a comfort, and a map that is filled for moments may be any of its shape.
fn matters(pin: Pin, damage: Damage) -> bool {
    match pin {
        Pin::Map(name) => damage != Damage::Twin || !FOR_MOMENTS.contains(&name),
        Pin::Link(name) => damage != Damage::Removed || !name.starts_with("public_port"),
        Pin::Maps | Pin::Links | Pin::Version | Pin::Beside(_) | Pin::HalfBuilt => true,
    }
}

#[tokio::test]
async fn maps_of_others_are_built_anew() -> Result<()> {
    let mut scene = Scene::new()?;
    for (map, damage) in [
        ("ENDPOINTS", Damage::Twin),
        ("TAGS", Damage::Twin),
        ("LISTENERS", Damage::Program),
        ("SERVICES", Damage::OwnMap),
        ("EVENTS", Damage::OtherMap),
        ("FLOWS", Damage::Directory),
        ("MEMBERS", Damage::Open),
    ] {
        scene.is_built_anew(Pin::Map(map), damage).await?;
    }
    scene.goes_on().await
}

#[tokio::test]
async fn links_of_others_are_built_anew_and_left_as_they_are() -> Result<()> {
    let mut scene = Scene::new()?;
    for (link, damage) in [
        ("steer", Damage::Twin),
        ("share_bind4", Damage::Twin),
        ("track_flows", Damage::Twin),
        ("share_bind6", Damage::OwnLink),
        ("steer", Damage::Detached),
        ("refuse_multipath", Damage::Program),
        ("follow_fork", Damage::OtherMap),
        ("steer", Damage::Directory),
        ("public_port4", Damage::Symlink),
    ] {
        scene.is_built_anew(Pin::Link(link), damage).await?;
    }
    scene.goes_on().await
}

#[tokio::test]
async fn directories_of_others_are_built_anew() -> Result<()> {
    let mut scene = Scene::new()?;
    for (place, damage) in [
        (Pin::Links, Damage::Removed),
        (Pin::Links, Damage::OtherMap),
        (Pin::Links, Damage::Foreign),
        (Pin::Maps, Damage::Symlink),
        (Pin::Version, Damage::OtherMap),
        (Pin::Beside("links/somebody"), Damage::Directory),
        (Pin::Beside("maps/somebody"), Damage::OtherMap),
        (Pin::HalfBuilt, Damage::Directory),
        (Pin::HalfBuilt, Damage::OtherMap),
    ] {
        scene.is_built_anew(place, damage).await?;
    }
    scene.goes_on().await
}

#[tokio::test]
async fn what_others_have_in_the_pin_directory_is_theirs() -> Result<()> {
    let mut scene = Scene::new()?;
    scene.shares_its_directory().await
}

#[tokio::test]
async fn contents_that_are_gone_or_make_no_sense_are_written_anew() -> Result<()> {
    let mut scene = Scene::new()?;
    for map in ["ENDPOINTS", "SERVICES", "LISTENER_SETS", "FLOWS", "BIND_RULES"] {
        scene.is_built_anew(Pin::Map(map), Damage::Emptied).await?;
    }
    for map in ["LISTENERS", "MEMBERS"] {
        scene.is_as_before(Pin::Map(map), Damage::Emptied).await?;
    }
    for map in ["ENDPOINTS", "SERVICES", "LISTENER_SETS", "FLOWS"] {
        scene.is_as_before(Pin::Map(map), Damage::Nonsense).await?;
    }
    scene.goes_on().await
}

/// What steers is what the attached program works on, whatever is pinned.
#[tokio::test]
async fn without_a_state_it_is_derived_from_what_steers() -> Result<()> {
    let mut scene = Scene::new()?;
    for (map, damage) in
        [("ENDPOINTS", Damage::Twin), ("SERVICES", Damage::Program), ("TAGS", Damage::Removed)]
    {
        scene.is_repaired_without_a_state(Pin::Map(map), damage).await?;
    }
    scene.goes_on().await
}

#[test]
fn where_nothing_is_known_the_error_says_what_helps() -> Result<()> {
    Scene::new()?.is_given_up_and_attached_again()
}
