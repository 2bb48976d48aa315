//! Servers as their users deploy them: each version is a folder of its own, and one command starts it.
//!
//! What is particular about one server is its [`Kind`]; the files of a version are templates.

use std::fs;
use std::path::{Path, PathBuf};

use agent_load::{KeepAlive, Pace, Plan};
use anyhow::{Context as _, Result};
use nix::unistd::{User, chown};
use tempfile::TempDir;

use super::{Server, THINK, directory};

/// What is particular about a server.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// What it is called.
    pub name: &'static str,
    /// The port of every version.
    pub port: u16,
    /// Who starts it; `None` is root.
    pub user: Option<&'static str>,
    /// Whether it keeps connections between two requests.
    pub keeps: Keeps,
    /// Where the server writes its number when it makes a daemon of itself, in the folder of all versions.
    pub pid_file: Option<&'static str>,
    /// Writes the files of a version, and says which command starts it.
    pub release: fn(&Release<'_>) -> Result<Vec<String>>,
}

/// Whether a server keeps a connection after an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Keeps {
    /// It closes each.
    Nothing,
    /// It waits for more requests.
    Connections,
}

/// A version of a server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Version {
    /// One that answers with its number.
    Works(u32),
    /// One that cannot work.
    Broken,
}

impl Version {
    /// What it answers with. One that cannot work would answer 0.
    pub fn number(self) -> u32 {
        match self {
            Self::Works(number) => number,
            Self::Broken => 0,
        }
    }
}

/// A version with its folder.
#[derive(Debug)]
pub struct Release<'a> {
    /// Which one.
    pub version: Version,
    server: &'a Released,
    folder: PathBuf,
}

impl Release<'_> {
    /// Writes a file of this version and returns its path: `template` if it works, else `broken`.
    ///
    /// In both of them `@VERSION@` becomes the number, `@PORT@` the port, `@HERE@` the folder of this version, and
    /// `@SHARED@` that of all of them.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn file(&self, name: &str, template: &str, broken: &str) -> Result<String> {
        let text = match self.version {
            Version::Works(_) => template,
            Version::Broken => broken,
        };
        let text = text.replace("@VERSION@", &self.version.number().to_string());
        let text = text.replace("@PORT@", &self.server.kind.port.to_string());
        let text = text.replace("@HERE@", &self.folder.display().to_string());
        let text = text.replace("@SHARED@", &self.server.directory.path().display().to_string());
        let path = self.folder.join(name);
        fs::write(&path, text).with_context(|| format!("write `{}`", path.display()))?;
        Ok(path.display().to_string())
    }

    /// The folder of this version.
    pub fn here(&self) -> String {
        self.folder.display().to_string()
    }

    /// The path of a file that all versions share.
    pub fn shared(&self, name: &str) -> String {
        self.server.directory.path().join(name).display().to_string()
    }
}

/// A server of some kind, with a folder for all its versions.
#[derive(Debug)]
pub struct Released {
    kind: Kind,
    directory: TempDir,
}

impl Released {
    /// Makes the folder, which belongs to who starts the server.
    ///
    /// # Errors
    ///
    /// If it cannot be made, or there is no such user.
    pub fn new(kind: Kind) -> Result<Self> {
        let directory = directory(kind.name)?;
        if let Some(name) = kind.user {
            let user = User::from_name(name)?.with_context(|| format!("find the user `{name}`"))?;
            chown(directory.path(), Some(user.uid), Some(user.gid))?;
        }
        Ok(Self { kind, directory })
    }

    /// The command of a version that cannot work, in the way in which such servers break.
    ///
    /// # Errors
    ///
    /// If its files cannot be written.
    pub fn broken(&self) -> Result<Vec<String>> {
        self.release(Version::Broken)
    }

    fn release(&self, version: Version) -> Result<Vec<String>> {
        let name = match version {
            Version::Works(number) => format!("v{number}"),
            Version::Broken => "broken".to_owned(),
        };
        let folder = self.directory.path().join(name);
        fs::create_dir_all(&folder)?;
        (self.kind.release)(&Release { version, server: self, folder })
    }

    /// What makes the first version run as its user, as a login would; the later ones take over from it.
    fn as_user(&self) -> Vec<String> {
        let Some(user) = self.kind.user else { return Vec::new() };
        let who = [format!("--reuid={user}"), format!("--regid={user}")];
        let home = format!("HOME={}", self.directory.path().display());
        let words = ["setpriv".to_owned()].into_iter().chain(who);
        let rest = ["--init-groups", "--reset-env", "env", &home].map(str::to_owned);
        words.chain(rest).collect()
    }
}

impl Server for Released {
    fn name(&self) -> &'static str {
        self.kind.name
    }

    fn port(&self) -> u16 {
        self.kind.port
    }

    fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn command(&self, generation: u32) -> Result<Vec<String>> {
        let own = self.release(Version::Works(generation))?;
        Ok(if generation == 1 { [self.as_user(), own].concat() } else { own })
    }

    fn plan(&self) -> Plan {
        let keep_alive = (self.kind.keeps == Keeps::Connections).then_some(KeepAlive {
            connections: 4,
            pace: Pace::Think(THINK),
            // Each is ended by its client after a while: a drain is then short, and the old version has nothing to cut.
            requests: Some(25),
        });
        Plan { keep_alive, ..Plan::http(self.address()).one_shot(100) }
    }

    fn pid_file(&self, _generation: u32) -> Option<PathBuf> {
        self.kind.pid_file.map(|name| self.directory.path().join(name))
    }
}
