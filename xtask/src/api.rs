//! `cargo xtask api`: the documents of the API, made anew from its types.

use std::path::Path;

use anyhow::Result;

use crate::{command, setup};

/// Writes `docs/api`. A test of `agent-api` fails where that is not what the types are.
///
/// # Errors
///
/// When the types do not compile, or the folder cannot be written.
pub(crate) fn run(root: &Path) -> Result<()> {
    setup::for_build(root)?;
    let example = ["--package", "agent-api", "--features", "schema", "--example", "documents"];
    let folder = root.join("docs/api");
    command::run(command::cargo(root).args(["run", "--quiet"]).args(example).arg("--").arg(folder))
}
