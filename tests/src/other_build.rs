//! Other builds of the agent: a copy of the binary whose kernel programs inside were changed.
//!
//! The object is in the binary as it was compiled, so that what a compiler might have made otherwise can be written over it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

/// A copy of the agent's binary; removed when dropped.
#[derive(Debug)]
pub struct OtherBuild {
    _directory: TempDir,
    binary: PathBuf,
}

impl OtherBuild {
    /// One whose programs do the same in other instructions: each is another program to the kernel.
    ///
    /// # Errors
    ///
    /// If the binary has no programs inside.
    pub fn with_other_programs(binary: &Path) -> Result<Self> {
        Self::changed(binary, |instruction| match *instruction {
            [MOVE_64, 0, 0, 0, .., 0] => instruction[0] = MOVE_32,
            [MOVE_32, 0, 0, 0, .., 0] => instruction[0] = MOVE_64,
            _ => {}
        })
    }

    /// One whose programs the verifier refuses.
    ///
    /// # Errors
    ///
    /// If the binary has no programs inside.
    pub fn with_broken_programs(binary: &Path) -> Result<Self> {
        Self::changed(binary, |instruction| {
            // The result is then one that was never set.
            if let [MOVE_64 | MOVE_32, 0, 0, 0, .., 0] = *instruction {
                instruction[1] = UNSET_REGISTER;
            }
        })
    }

    /// The program.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    fn changed(binary: &Path, change: impl Fn(&mut [u8; 8])) -> Result<Self> {
        let mut bytes = fs::read(binary)?;
        let object = object(&bytes).context("the binary has no kernel programs inside")?;
        let (mut sections, mut changed) = (0, 0);
        for section in programs(&bytes[object..]).context("the object is no ELF file")? {
            let section = object + section.start..object + section.end;
            sections += 1;
            for instruction in bytes[section].as_chunks_mut::<8>().0 {
                let before = *instruction;
                change(instruction);
                changed += usize::from(before != *instruction);
            }
        }
        ensure!(changed > sections, "{changed} instructions changed in {sections} programs");
        // Where programs may be run from.
        let directory = tempfile::tempdir()?;
        let copy = directory.path().join("agent");
        fs::copy(binary, &copy)?;
        fs::write(&copy, bytes)?;
        Ok(Self { _directory: directory, binary: copy })
    }
}

/// Where the object for the kernel's machine begins.
fn object(bytes: &[u8]) -> Option<usize> {
    let starts = bytes.windows(MAGIC.len()).enumerate().filter(|(_, window)| *window == MAGIC);
    starts.map(|(at, _)| at).find(|at| half(bytes, at + 18) == Some(MACHINE))
}

/// The sections that hold instructions.
fn programs(object: &[u8]) -> Option<Vec<std::ops::Range<usize>>> {
    let headers = usize::try_from(long(object, 0x28)?).ok()?;
    let count = usize::from(half(object, 0x3c)?);
    let mut found = Vec::new();
    for header in (0..count).map(|number| headers + number * 64) {
        if long(object, header + 8)? & EXECUTABLE != 0 {
            let start = usize::try_from(long(object, header + 0x18)?).ok()?;
            let size = usize::try_from(long(object, header + 0x20)?).ok()?;
            found.push(start..start + size);
        }
    }
    Some(found)
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_le_bytes)
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
}

const MAGIC: &[u8] = b"\x7fELF\x02\x01\x01";
/// `EM_BPF`
const MACHINE: u16 = 247;
/// `SHF_EXECINSTR`
const EXECUTABLE: u64 = 4;
/// `r0 = number` and `w0 = number`: the same for a number that is not negative.
const MOVE_64: u8 = 0xb7;
const MOVE_32: u8 = 0xb4;
const UNSET_REGISTER: u8 = 9;
