//! PID namespaces that end with the old generation, and would take its successor along.

use agent_api::NamespacesOf;
use agent_terms::{GenerationId, ServiceId};

use super::{error::IdentifyError, found};
use crate::{
    daemon::{agent::Agent, world_error::WorldError},
    host::{
        holders,
        init::{self, NamespaceEnd},
        process::Pid,
    },
};

impl Agent {
    /// What the operator should know before a generation is launched in these namespaces.
    ///
    /// # Errors
    ///
    /// When it would end together with the one that it replaces.
    pub(in crate::daemon) fn survives_in(
        &self,
        id: ServiceId,
        namespaces: NamespacesOf,
    ) -> Result<Option<String>, IdentifyError> {
        let Some(root) = self.root_of_primary(id)? else { return Ok(None) };
        match namespaces {
            NamespacesOf::Replaced => judge(root, root),
            NamespacesOf::Agent => judge(root, Pid::ours()),
        }
    }

    /// The same for a server that somebody has started already.
    ///
    /// # Errors
    ///
    /// As [`Self::survives_in`].
    pub(in crate::daemon) fn survives_beside(
        &self,
        id: ServiceId,
        server: Pid,
    ) -> Result<Option<String>, IdentifyError> {
        match self.root_of_primary(id)? {
            Some(root) => judge(root, server),
            None => Ok(None),
        }
    }

    fn root_of_primary(&self, id: ServiceId) -> Result<Option<Pid>, WorldError> {
        let Some(primary) = self.record(id).service.primary() else { return Ok(None) };
        let pids = self.pids_of(GenerationId { service: id, number: primary.number() })?;
        Ok(holders::roots(&pids)?.first().copied())
    }
}

/// Whether one in the PID namespace of `inside` survives the end of `old`. Of a namespace that is the agent's own, an init
/// that nobody knows is not taken for one that ends: nothing could ever be upgraded there.
fn judge(old: Pid, inside: Pid) -> Result<Option<String>, IdentifyError> {
    let end = init::end_with(old)?;
    if end == NamespaceEnd::Spared || !init::share_pid_namespace(old, inside)? {
        return Ok(None);
    }
    let is_ours = init::share_pid_namespace(old, Pid::ours())?;
    match end {
        NamespaceEnd::Spared => Ok(None),
        NamespaceEnd::Likely(init) if is_ours => Ok(Some(format!(
            "if process {} ends with the old generation, the kernel kills every process of this PID namespace",
            found::describe(init)
        ))),
        NamespaceEnd::Likely(init) | NamespaceEnd::Certain(init) => {
            let init = Some(init).filter(|init| *init != old).map(found::describe);
            Err(IdentifyError::EndsTogether { old: found::describe(old), init, is_ours })
        }
    }
}
