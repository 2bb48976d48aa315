//! What is compared: one script each, whose first lines describe it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

/// A way to upgrade a server, as the head of its script tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contender {
    /// The script's name without its ending.
    pub name: String,
    /// The place in every table.
    pub row: u32,
    /// What it is called there.
    pub title: String,
    /// The program that answers.
    pub server: String,
    /// What the application has to do for it.
    pub application: String,
    /// How it is done, in a sentence.
    pub way: String,
    /// `http` or `redis`.
    pub protocol: String,
    /// The classes of clients that the server can serve.
    pub clients: Vec<String>,
    /// New connections per second that it can take, if that is little.
    pub rate: Option<u32>,
    /// Whether it is upgraded at all.
    pub upgrades: bool,
    /// Whether the agent is in charge.
    pub agent: bool,
    /// Programs without which it cannot run.
    pub needs: Vec<String>,
}

impl Contender {
    /// Reads the head of a script.
    ///
    /// # Errors
    ///
    /// If the script cannot be read, or says too little or something unknown.
    pub fn read(script: &Path) -> Result<Self> {
        let name = script.file_stem().and_then(|name| name.to_str()).context("a name")?;
        let text = fs::read_to_string(script)?;
        Self::parse(name, &text).with_context(|| format!("the head of `{}`", script.display()))
    }

    /// One by its name.
    ///
    /// # Errors
    ///
    /// As [`Self::read`].
    pub fn named(name: &str) -> Result<Self> {
        Self::read(&folder().join(format!("contenders/{name}.sh")))
    }

    /// All that there are.
    ///
    /// # Errors
    ///
    /// As [`Self::read`].
    pub fn all() -> Result<Vec<Self>> {
        let scripts = fs::read_dir(folder().join("contenders"))?;
        let mut all =
            scripts.map(|script| Self::read(&script?.path())).collect::<Result<Vec<_>>>()?;
        all.sort_by_key(|contender| contender.row);
        Ok(all)
    }

    /// Where its script is.
    pub fn script(&self) -> PathBuf {
        folder().join(format!("contenders/{}.sh", self.name))
    }

    fn parse(name: &str, text: &str) -> Result<Self> {
        let lines = text.lines().map_while(|line| line.strip_prefix("# "));
        let mut fields: BTreeMap<&str, &str> =
            lines.filter_map(|line| line.split_once(": ")).collect();
        let mut required = |field| fields.remove(field).with_context(|| format!("no `{field}`"));
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect();
        let mut contender = Self {
            name: name.to_owned(),
            row: required("row")?.parse()?,
            title: required("title")?.to_owned(),
            server: required("server")?.to_owned(),
            application: required("application")?.to_owned(),
            way: required("way")?.to_owned(),
            needs: words(required("needs")?),
            protocol: "http".to_owned(),
            clients: words("one-shot keep-alive stream upload"),
            rate: None,
            upgrades: true,
            agent: false,
        };
        for (field, value) in fields {
            match (field, value) {
                ("protocol", "http" | "redis") => value.clone_into(&mut contender.protocol),
                ("clients", _) => contender.clients = words(value),
                ("rate", _) => contender.rate = Some(value.parse()?),
                ("upgrades", "no") => contender.upgrades = false,
                ("controller", "agent") => contender.agent = true,
                _ => bail!("`{field}: {value}` is not understood"),
            }
        }
        Ok(contender)
    }
}

/// Where the scripts are.
pub(super) fn folder() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_script_describes_itself() {
        let all = Contender::all().unwrap();
        let rows: Vec<u32> = all.iter().map(|contender| contender.row).collect();
        let expected: Vec<u32> = (1..).take(all.len()).collect();
        assert_eq!(rows, expected);
        assert!(!all[0].upgrades, "the first one is what all others are compared with");
    }

    #[test]
    fn a_head_that_is_not_understood_is_refused() {
        let head = "# row: 1\n# title: t\n# server: s\n# application: a\n# way: w\n# needs: x y\n";
        let contender = Contender::parse("name", head).unwrap();
        assert_eq!(contender.needs, ["x", "y"]);
        assert!(Contender::parse("name", &format!("{head}# colour: red\n")).is_err());
        assert!(Contender::parse("name", "# row: 1\n").is_err());
    }
}
