//! What else has a say in who gets the connections of a port: programs of others, and another agent.

use std::{fs, path::PathBuf};

use agent_terms::Endpoint;

use super::{
    error::{IdentifyError, held_by},
    found::describe,
};
use crate::{
    daemon::agent::Agent,
    datapath::{self, LookupProgram},
    host::{bpf_links::holders_of_program, mounts, process::Pid},
};

impl Agent {
    /// Refuses a port that another agent has in charge: each would steer, end and count as if it were alone.
    ///
    /// # Errors
    ///
    /// When another agent has one of these endpoints, whether it runs or only its pins are left.
    pub(in crate::daemon) fn refuse_other_agent(
        &self,
        wanted: &[Endpoint],
    ) -> Result<(), IdentifyError> {
        for other in datapath::others(&self.places.pin_dir)? {
            let theirs = other.endpoints.iter().flatten();
            let Some(taken) =
                theirs.into_iter().find(|it| wanted.iter().any(|mine| meet(it, mine)))
            else {
                continue;
            };
            return Err(IdentifyError::OtherAgent {
                endpoint: taken.clone(),
                pins: pins_of(other.id),
                holders: holders_of(other.id),
            });
        }
        Ok(())
    }

    /// Other programs that choose among listeners here, in words. Not those of agents that have other ports.
    pub(in crate::daemon) fn other_steering(&self) -> Vec<String> {
        let others = match datapath::others(&self.places.pin_dir) {
            Ok(others) => others,
            Err(error) => {
                tracing::warn!(%error, "cannot list what else steers here");
                return Vec::new();
            }
        };
        others.iter().filter(|other| other.endpoints.is_none()).map(warning).collect()
    }
}

fn warning(other: &LookupProgram) -> String {
    let name = match other.name.is_empty() {
        true => String::new(),
        false => format!("`{}` ", other.name),
    };
    format!(
        "another program, {name}(sk_lookup, number {}{}), steers in this network namespace too: for this port the agent's choice \
         counts, unless that program is attached again later and replaces it",
        other.id,
        held_by(&holders_of(other.id))
    )
}

/// Whether two endpoints have connections in common.
fn meet(one: &Endpoint, other: &Endpoint) -> bool {
    one.port == other.port
        && (one.address.serves(other.address) || other.address.serves(one.address))
}

/// Which processes hold a program, if any does.
fn holders_of(program: u32) -> Vec<String> {
    let holders = holders_of_program(program).unwrap_or_default();
    holders.iter().map(|pid: &Pid| describe(*pid)).collect()
}

/// The pin directory of the agent whose program this is, as far as it is on a BPF file system that we see.
fn pins_of(program: u32) -> Option<PathBuf> {
    let roots = mounts::of_type("bpf").ok()?;
    let directories =
        roots.iter().flat_map(|mount| fs::read_dir(&mount.point)).flatten().filter_map(Result::ok);
    directories
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .find(|path| matches!(datapath::steering_program(path), Ok(Some(id)) if id == program))
}
