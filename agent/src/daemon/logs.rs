//! The output of launched generations, one file each. They write it themselves; we make room for it and clear it away.

use std::{
    collections::HashSet,
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use super::{
    agent::Agent,
    step::{Step, change},
};
use crate::{
    api::{Problem, ProblemKind},
    rollout::Service,
    service::{GenerationNumber, ServiceId, ServiceName},
};

/// Of so many generations that are gone the output is kept while the service is attached.
const KEPT: usize = 16;

impl Agent {
    pub(super) fn log_path(&self, service: &ServiceName, number: GenerationNumber) -> PathBuf {
        self.places.service_dir(service.as_str()).join(format!("{PREFIX}{number}{SUFFIX}"))
    }

    /// Makes the directory for a next one, and clears away the oldest.
    ///
    /// # Errors
    ///
    /// When the directory cannot be made. That an old file stays is logged.
    pub(super) fn prepare_log(&self, id: ServiceId) -> Result<(), Problem> {
        let service = &self.record(id).service;
        let directory = self.places.service_dir(service.name.as_str());
        change(Step::MakeLogDirectory, || {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory);
            made.map_err(|error| {
                let message = format!("nothing has changed: create `{}`", directory.display());
                Problem::new(ProblemKind::Failed, message).because(&error)
            })
        })?;
        let gone = all_but_newest(logs_in(&directory), KEPT, |number| {
            service.generation(number).is_some()
        });
        if gone.is_empty() {
            return Ok(());
        }
        let removed = change(Step::RemoveLogs, || {
            gone.iter().for_each(|number| remove(&self.log_path(&service.name, *number)));
            Ok(())
        });
        if let Err(problem) = removed {
            tracing::warn!(%problem, "old logs stay");
        }
        Ok(())
    }

    /// A server that goes on keeps writing to its log; all others go.
    pub(super) fn remove_logs(&self, service: &Service) {
        let directory = self.places.service_dir(service.name.as_str());
        let kept: HashSet<_> =
            service.generations.iter().map(|it| self.log_path(&service.name, it.number)).collect();
        let Ok(entries) = fs::read_dir(&directory) else { return };
        entries
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .filter(|path| !kept.contains(path))
            .for_each(|path| remove(&path));
        match fs::remove_dir(&directory) {
            Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => {
                tracing::warn!(%error, directory = %directory.display(), "cannot remove the log directory");
            }
            Ok(()) | Err(_) => {}
        }
    }
}

fn logs_in(directory: &Path) -> Vec<GenerationNumber> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let number = |name: &str| name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok();
    entries
        .filter_map(Result::ok)
        .filter_map(|entry| number(entry.file_name().to_str()?))
        .map(GenerationNumber)
        .collect()
}

/// Generations that live do not count.
fn all_but_newest(
    mut logs: Vec<GenerationNumber>,
    kept: usize,
    lives: impl Fn(GenerationNumber) -> bool,
) -> Vec<GenerationNumber> {
    logs.retain(|number| !lives(*number));
    logs.sort_unstable();
    logs.truncate(logs.len().saturating_sub(kept));
    logs
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!(%error, path = %path.display(), "cannot remove the log of a generation that is gone");
    }
}

const PREFIX: &str = "generation-";
const SUFFIX: &str = ".log";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_of_the_dead_go() {
        let logs = [9, 1, 10, 3, 2].map(GenerationNumber).to_vec();
        let gone = all_but_newest(logs, 2, |it| it == GenerationNumber(1));
        assert_eq!(gone, [2, 3].map(GenerationNumber));
    }
}
