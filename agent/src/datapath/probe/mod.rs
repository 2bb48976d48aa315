//! Finds out what this kernel can do, by doing all of it once where it disturbs nobody.
//!
//! The rehearsal has a thread with a network namespace and a mount namespace of its own. The BPF file system that it mounts
//! there is seen by nobody else, so that our own code loads, attaches and pins as it always does, and the kernel removes
//! everything with the thread, however that ends. Only the programs for control groups need a group that everybody sees;
//! the caller makes an empty one.

mod about;
mod feature;

use std::{
    fs::File,
    io,
    net::{Ipv4Addr, TcpListener},
    os::fd::BorrowedFd,
    path::Path,
    thread,
};

pub use self::{
    about::{About, Takes, Without, table},
    feature::Feature,
};
use agent_terms::{Endpoint, GenerationId, GenerationNumber, LocalAddress, ServiceId};
use aya::{EbpfError, maps::MapError};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::sockopt,
};

use super::{
    Datapath, DatapathError, Event, ListenerToAdopt,
    kernel::Kernel,
    pins::Pins,
    place::Place,
    programs::{ATTACHED, COMFORTS, MIGRATE, ON_DEMAND},
};

/// How a feature did.
#[derive(Debug)]
pub enum Outcome {
    /// As needed.
    Works,
    /// The kernel said no, or did something else.
    Refused(String),
    /// It did not come to that.
    Untried(String),
}

/// Whether the rehearsal makes namespaces of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seclusion {
    /// If it may.
    Wanted,
    /// One that tried was killed.
    Deadly,
}

/// Rehearses everything. Each feature is in the answer once.
///
/// Where there can be no such namespaces, it all happens where the agent would do it, with pins in what `aside` makes, which is kept
/// until the end. No endpoint is known to the programs there, so that they let everything pass.
///
/// The bind programs are attached to `cgroup`, which must be empty and is left as it was. `with_tags` is given the storage
/// map, for those who read it in other ways than by programs; it runs only if there is one.
///
/// # Errors
///
/// When there can be no thread for it.
pub fn rehearse<Aside: AsRef<Path>>(
    seclusion: Seclusion,
    cgroup: Result<&File, &str>,
    aside: impl FnOnce() -> Result<Aside, String> + Send,
    with_tags: impl FnOnce(BorrowedFd<'_>) + Send,
) -> io::Result<Vec<(Feature, Outcome)>> {
    let rehearsal = || Rehearsal::new().run(seclusion, cgroup, aside, with_tags);
    // A thread that nobody may start is no panic.
    let ended = thread::scope(|scope| -> io::Result<_> {
        Ok(thread::Builder::new().spawn_scoped(scope, rehearsal)?.join())
    });
    Ok(ended?.unwrap_or_else(|_panic| {
        Rehearsal::new().not_reached("the rehearsal ended in a panic, which is a bug")
    }))
}

/// What has been found out so far.
struct Rehearsal {
    outcomes: Vec<(Feature, Outcome)>,
}

impl Rehearsal {
    const fn new() -> Self {
        Self { outcomes: Vec::new() }
    }

    fn run<Aside: AsRef<Path>>(
        mut self,
        seclusion: Seclusion,
        cgroup: Result<&File, &str>,
        aside: impl FnOnce() -> Result<Aside, String>,
        with_tags: impl FnOnce(BorrowedFd<'_>),
    ) -> Vec<(Feature, Outcome)> {
        let secluded = match seclusion {
            Seclusion::Wanted => seclude(),
            Seclusion::Deadly => {
                Err("a filter of system calls (seccomp) kills who makes them".to_owned())
            }
        };
        // Those of our own mount namespace go with it.
        let aside = secluded.is_err().then(aside).transpose();
        let pins = aside.as_ref().map(|it| it.as_ref().map_or(Path::new(PINS), AsRef::as_ref));
        let why = match self.try_all(secluded, pins.map_err(String::as_str), cgroup, with_tags) {
            Ok(()) => "it was forgotten, which is a bug".to_owned(),
            Err(Ended(why)) => why,
        };
        self.not_reached(&why)
    }

    fn try_all(
        &mut self,
        secluded: Result<(), String>,
        pins: Result<&Path, &str>,
        cgroup: Result<&File, &str>,
        with_tags: impl FnOnce(BorrowedFd<'_>),
    ) -> Result<(), Ended> {
        let mounted = match (&secluded, pins) {
            (Err(why), Err(error)) => Err(format!("{error}; {why}")),
            (Ok(()) | Err(_), _) => Ok(()),
        };
        // Only this is lost with it, and the agent needs none.
        self.outcomes.push((
            Feature::Seclusion,
            secluded.map_or_else(Outcome::Refused, |()| Outcome::Works),
        ));
        self.note(Feature::FileSystem, mounted)?;
        let (mut kernel, btf) = self.create_maps(pins.unwrap_or(Path::new(PINS)))?;
        let mut refused = Vec::new();
        for program in ON_DEMAND.into_iter().chain([MIGRATE]) {
            let loaded = kernel.load(program, &btf);
            refused.extend(self.outcome_of(Feature::of_program(program), loaded));
        }
        for program in COMFORTS.into_iter().chain(ATTACHED) {
            let feature = Feature::of_program(program);
            match (cgroup, feature.needs_cgroup()) {
                (Err(why), true) => {
                    refused.extend((!feature.is_comfort()).then(|| feature.to_string()));
                    self.outcomes.push((feature, Outcome::Untried(why.to_owned())));
                }
                (Err(_), false) => {
                    // Attached to the namespace or to a tracepoint: any descriptor will do.
                    let nowhere = File::open("/").map_err(|error| Ended(error.to_string()))?;
                    let attached = kernel
                        .load(program, &btf)
                        .and_then(|()| kernel.put_in_place(program, &nowhere));
                    refused.extend(self.outcome_of(feature, attached));
                }
                (Ok(cgroup), _) => {
                    let attached = kernel
                        .load(program, &btf)
                        .and_then(|()| kernel.put_in_place(program, cgroup));
                    refused.extend(self.outcome_of(feature, attached));
                }
            }
        }
        let datapath = Datapath::of(kernel).map_err(|error| Ended(all_causes(&error)))?;
        with_tags(datapath.tags());
        if !refused.is_empty() {
            return Err(Ended(format!("not without {}", refused.join(", "))));
        }
        self.take_over(datapath)
    }

    /// Also says which map it was that the kernel refused.
    fn create_maps(&mut self, pins: &Path) -> Result<(Kernel, aya::Btf), Ended> {
        let created = Place::with(None)
            .and_then(|place| Pins::begin(pins, place))
            .and_then(Kernel::create_maps);
        let error = match created {
            Ok(created) => {
                self.outcomes.push((Feature::Types, Outcome::Works));
                self.outcomes.extend(Feature::MAPS.map(|map| (map, Outcome::Works)));
                return Ok(created);
            }
            Err(error) => error,
        };
        let refused = Outcome::Refused(all_causes(&error));
        match &error {
            DatapathError::KernelTypes(_) | DatapathError::KernelLayout(_) => {
                self.outcomes.push((Feature::Types, refused));
                return Err(Ended("not without the kernel's types".to_owned()));
            }
            DatapathError::Object(object) => {
                self.outcomes.push((Feature::Types, Outcome::Works));
                if let Some((feature, map)) = refused_map(object) {
                    self.outcomes.push((feature, refused));
                    return Err(Ended(format!("not without the map {map}")));
                }
            }
            _ => {}
        }
        Err(Ended(all_causes(&error)))
    }

    /// A listener of ours is a running server's as far as the kernel can tell.
    fn take_over(&mut self, mut datapath: Datapath) -> Result<(), Ended> {
        let failed = |error: std::io::Error| Ended(format!("open a listener: {error}"));
        // Any address: that of the loopback interface, which is down here, is no local one on kernels that have one table of routes.
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        let cookie = sockopt::socket_cookie(&listener).map_err(|error| failed(error.into()))?;
        let generation = GenerationId { service: ServiceId(1), number: GenerationNumber(1) };
        let address = LocalAddress::Ipv4(Ipv4Addr::UNSPECIFIED);
        let adopted = datapath.adopt_listeners(
            generation,
            &[Endpoint { number: 0, port, address, since: None }],
            &[ListenerToAdopt { cookie, port, address, share: true, multipath: false }],
        );
        let adopted = adopted.map_err(|error| all_causes(&error)).and_then(|adopted| {
            let shared = sockopt::socket_reuseport(&listener).map_err(|error| error.to_string())?;
            match adopted.iter().all(|it| it.in_map) && shared {
                true => Ok(()),
                false => Err("the kernel took the listener, and its port is not shared".to_owned()),
            }
        });
        self.note(Feature::TakeOver, adopted)?;

        let mut events = datapath.take_events().map_err(|error| Ended(all_causes(&error)))?;
        while events.take().is_some() {}
        drop(listener);
        let mut readable = [PollFd::new(&events, PollFlags::IN)];
        let limit = Timespec { tv_sec: 1, tv_nsec: 0 };
        // What it says shows in what can be taken.
        let _: Result<usize, _> = poll(&mut readable, Some(&limit));
        let reported = match events.take() {
            Some(Event::ListenerGone(gone)) if gone == generation => Ok(()),
            Some(other) => Err(format!("instead of a listener's end came {other:?}")),
            None => Err("a listener was closed, and no report came".to_owned()),
        };
        self.note(Feature::Report, reported)
    }

    fn note(&mut self, feature: Feature, result: Result<(), String>) -> Result<(), Ended> {
        let ended = result.is_err().then(|| Ended(format!("not without {feature}")));
        self.outcomes.push((feature, result.map_or_else(Outcome::Refused, |()| Outcome::Works)));
        ended.map_or(Ok(()), Err)
    }

    /// Notes the outcome and returns the program's name if it was refused.
    fn outcome_of(
        &mut self,
        feature: Feature,
        result: Result<(), DatapathError>,
    ) -> Option<String> {
        let refused = result.err();
        let outcome =
            refused.as_ref().map_or(Outcome::Works, |error| Outcome::Refused(all_causes(error)));
        self.outcomes.push((feature, outcome));
        refused.filter(|_| !feature.is_comfort()).map(|_| feature.to_string())
    }

    fn not_reached(mut self, why: &str) -> Vec<(Feature, Outcome)> {
        for feature in Feature::ALL {
            if !self.outcomes.iter().any(|(noted, _)| *noted == feature) {
                self.outcomes.push((feature, Outcome::Untried(why.to_owned())));
            }
        }
        self.outcomes.sort_by_key(|(feature, _)| *feature);
        self.outcomes
    }
}

/// Why nothing more can be tried.
struct Ended(String);

/// Where only this thread sees it, and whatever is there otherwise stays for all others.
fn seclude() -> Result<(), String> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
        .map_err(|error| format!("make a network and a mount namespace: {error}"))?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(|error| format!("keep mounts to ourselves: {error}"))?;
    mount_bpf()
}

fn mount_bpf() -> Result<(), String> {
    let options: Option<&str> = None;
    mount(Some("bpf"), MOUNT, Some("bpf"), MsFlags::empty(), options)
        .map_err(|error| format!("mount the BPF file system at `{MOUNT}`: {error}"))
}

fn refused_map(error: &EbpfError) -> Option<(Feature, &str)> {
    match error {
        // The maps come in no order: without memory it is whichever is the first one.
        EbpfError::MapError(MapError::CreateError { name, io_error })
            if io_error.kind() == std::io::ErrorKind::OutOfMemory =>
        {
            Some((Feature::TableMaps, name))
        }
        EbpfError::MapError(MapError::CreateError { name, .. }) => {
            Some((Feature::of_map(name), name))
        }
        EbpfError::MapError(MapError::PinError { name, .. }) => {
            name.as_deref().map(|name| (Feature::of_map(name), name))
        }
        _ => None,
    }
}

/// On one line, and each cause once: some of aya's errors repeat theirs.
fn all_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = String::new();
    for cause in std::iter::successors(Some(error), |cause| cause.source()) {
        let said = cause.to_string();
        if text.is_empty() {
            text = said;
        } else if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
    }
    text
}

/// Seen by the rehearsal's thread alone.
const MOUNT: &str = "/sys/fs/bpf";
const PINS: &str = "/sys/fs/bpf/rehearsal";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_feature_has_an_outcome_in_order() {
        let mut rehearsal = Rehearsal::new();
        assert!(rehearsal.note(Feature::Seclusion, Err("no".to_owned())).is_err());
        let outcomes = rehearsal.not_reached("too early");
        let features: Vec<Feature> = outcomes.iter().map(|(feature, _)| *feature).collect();
        assert_eq!(features, Feature::ALL);
        assert!(matches!(&outcomes[0].1, Outcome::Refused(why) if why == "no"));
        assert!(matches!(&outcomes[1].1, Outcome::Untried(why) if why == "too early"));
    }

    #[test]
    fn a_map_without_memory_is_no_matter_of_its_kind() {
        let io_error = std::io::Error::from_raw_os_error(12);
        let error = MapError::CreateError { name: "TAGS".to_owned(), io_error };
        let error = EbpfError::MapError(error);
        assert_eq!(refused_map(&error), Some((Feature::TableMaps, "TAGS")));
    }

    #[test]
    fn a_refused_map_is_named() {
        let io_error = std::io::Error::from_raw_os_error(22);
        let error = MapError::CreateError { name: "TAGS".to_owned(), io_error };
        let error = EbpfError::MapError(error);
        assert_eq!(refused_map(&error), Some((Feature::InheritedStorage, "TAGS")));
        let text = all_causes(&DatapathError::Object(Box::new(error)));
        assert_eq!(text.matches("Invalid argument").count(), 1, "{text}");
    }
}
