//! Losing packets on purpose, in a namespace.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::namespace::Namespace;

/// Keeps the third packet of every handshake with a port from arriving, until it is dropped: the server sees half-open
/// requests, the clients see connections. What clients send then completes the handshake, because it acknowledges too.
#[derive(Debug)]
pub struct HalfOpen {
    namespace: Namespace,
}

impl HalfOpen {
    /// Begins to lose them.
    ///
    /// # Errors
    ///
    /// If the kernel takes no packet filter.
    pub fn begin(namespace: &Namespace, port: u16) -> Result<Self> {
        let losing = Self { namespace: namespace.clone() };
        let rules = format!(
            "table inet {TABLE} {{\nchain out {{\ntype filter hook output priority 0;\ntcp dport {port} tcp flags == ack drop;\n}}\n}}"
        );
        losing.nft(&rules)?;
        Ok(losing)
    }

    /// Lets them pass again.
    ///
    /// # Errors
    ///
    /// If the kernel does not.
    pub fn end(self) -> Result<()> {
        self.nft(&format!("delete table inet {TABLE}"))
    }

    fn nft(&self, rules: &str) -> Result<()> {
        let mut command = Command::new("nft");
        let child = self.namespace.spawn(command.arg(rules))?;
        let output = child.wait_with_output().context("wait for nft")?;
        ensure!(output.status.success(), "nft {rules}: {}", output.status);
        Ok(())
    }
}

const TABLE: &str = "handshakes";
