//! What a run is to be like.

use std::env;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// What `cargo xtask soak` passes on.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// After which nothing new is begun.
    pub(super) duration: Duration,
    /// Repeats the choices of another run.
    pub(super) seed: u64,
    /// Where the single values go.
    pub(super) file: PathBuf,
}

impl Settings {
    pub(super) fn given() -> Result<Self> {
        let mut words = env::args_os().skip(1);
        let (Some(duration), Some(seed), Some(file), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            bail!("use `cargo xtask soak`: this takes a duration, a seed and a file");
        };
        let duration = duration.to_str().and_then(|it| humantime::parse_duration(it).ok());
        let seed = seed.to_str().and_then(|it| it.parse().ok());
        Ok(Self {
            duration: duration.context("the duration is none")?,
            seed: seed.context("the seed is not a number")?,
            file: file.into(),
        })
    }

    /// Where the agent's log goes.
    pub(super) fn log(&self) -> PathBuf {
        self.file.with_extension("log")
    }

    /// A generator of random numbers of its own for each thread, so that none disturbs another one's choices.
    pub(super) fn random(&self, thread: u64) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.seed.wrapping_mul(THREADS).wrapping_add(thread))
    }

    /// How long the agent is killed again and again. Afterwards it lives on: a process that is replaced all the time would
    /// hide what it loses.
    pub(super) fn killing(&self) -> Duration {
        self.duration / 2
    }
}

/// More than there are.
const THREADS: u64 = 1_000;
