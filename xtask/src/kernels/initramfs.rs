//! What is in a machine: the guest as its first process, the agent, and the modules of its kernel.

use std::{
    fs::File,
    io::{BufWriter, Cursor, Read, Seek, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use cpio::{NewcBuilder, write_cpio};

/// Packs a machine's file system. It is not compressed: a machine without hardware would take longer for that than for
/// reading it.
///
/// # Errors
///
/// When a file cannot be read or the result cannot be written.
pub(super) fn pack(contents: &Contents<'_>, to: &Path) -> Result<()> {
    let file = File::create(to).with_context(|| format!("create `{}`", to.display()))?;
    let entries = contents.entries()?;
    let packed = write_cpio(entries.into_iter(), BufWriter::new(file));
    packed
        .and_then(|mut writer| writer.flush())
        .with_context(|| format!("write `{}`", to.display()))
}

/// The files of a machine.
#[derive(Debug)]
pub(super) struct Contents<'a> {
    pub(super) guest: &'a Path,
    pub(super) agent: &'a Path,
    /// Each with its name.
    pub(super) modules: Vec<(String, PathBuf)>,
}

impl Contents<'_> {
    fn entries(&self) -> Result<Vec<(NewcBuilder, Box<dyn Content>)>> {
        let mut entries = vec![
            (folder("bin"), nothing()),
            (folder("modules"), nothing()),
            (program("init"), opened(self.guest)?),
            (program("bin/agent"), opened(self.agent)?),
            // The same program under another name is the server that is upgraded.
            (link("bin/server"), Box::new(Cursor::new(b"/init")) as Box<dyn Content>),
        ];
        for (name, path) in &self.modules {
            entries.push((plain(&format!("modules/{name}")), opened(path)?));
        }
        Ok(entries)
    }
}

/// What can be packed.
trait Content: Read + Seek {}

impl<T: Read + Seek> Content for T {}

fn opened(path: &Path) -> Result<Box<dyn Content>> {
    let file = File::open(path).with_context(|| format!("open `{}`", path.display()))?;
    Ok(Box::new(file))
}

fn nothing() -> Box<dyn Content> {
    Box::new(Cursor::new([]))
}

fn folder(name: &str) -> NewcBuilder {
    NewcBuilder::new(name).mode(0o040_755).nlink(2)
}

fn program(name: &str) -> NewcBuilder {
    NewcBuilder::new(name).mode(0o100_755)
}

fn plain(name: &str) -> NewcBuilder {
    NewcBuilder::new(name).mode(0o100_644)
}

fn link(name: &str) -> NewcBuilder {
    NewcBuilder::new(name).mode(0o120_777)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs, fs::File, io::Read as _};

    use super::{Contents, pack};

    #[test]
    fn the_files_have_the_names_and_modes_that_the_kernel_looks_for() {
        let folder = tempfile::tempdir().unwrap();
        let [guest, agent, module, packed] =
            ["guest", "agent", "module", "packed"].map(|name| folder.path().join(name));
        for file in [&guest, &agent, &module] {
            fs::write(file, file.file_name().unwrap().as_encoded_bytes()).unwrap();
        }
        let modules = vec![("0-tcp_diag.ko".to_owned(), module)];
        pack(&Contents { guest: &guest, agent: &agent, modules }, &packed).unwrap();

        let mut found = BTreeMap::new();
        let mut file = File::open(&packed).unwrap();
        loop {
            let mut entry = cpio::NewcReader::new(file).unwrap();
            if entry.entry().is_trailer() {
                break;
            }
            let (name, mode) = (entry.entry().name().to_owned(), entry.entry().mode());
            let mut content = String::new();
            entry.read_to_string(&mut content).unwrap();
            found.insert(name, (mode, content));
            file = entry.finish().unwrap();
        }
        assert_eq!(found["init"], (0o100_755, "guest".to_owned()));
        assert_eq!(found["bin/agent"], (0o100_755, "agent".to_owned()));
        assert_eq!(found["bin/server"], (0o120_777, "/init".to_owned()));
        assert_eq!(found["modules/0-tcp_diag.ko"], (0o100_644, "module".to_owned()));
    }
}
