//! Fuzzing: what comes from outside, in forms that nobody meant.
//!
//! There are seven targets, each a test in a module `fuzz` beside the code that it tries, because most of that is private. An
//! input is a real example that was changed in a few places ([`mutate`]): random bytes alone never get past the first check. So
//! each target also says how many of its inputs the code took for what they should be, and fails if those are too few.
//!
//! ```text
//!   cargo test -p agent --lib fuzz          a short round of each, the same inputs each time
//!   cargo xtask fuzz --minutes 10 [TARGET]  other ones, for as long as that
//!   AGENT_FUZZ_SEED=N cargo test …          a failed round once more
//! ```
//!
//! proptest makes the inputs, and makes those that fail smaller. What was refused is a fuzzer that follows the coverage
//! (cargo-fuzz, bolero with libFuzzer): it needs the unstable compiler for the whole agent, and targets in a crate of their own,
//! for which every parser would have to be public. The formats here are shallow, and real examples lead to every branch.

pub(crate) mod json;
pub(crate) mod mutate;
mod watchdog;

use std::{
    cell::Cell,
    fmt::Debug,
    time::{Duration, Instant},
};

use proptest::{
    strategy::Strategy,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

use self::watchdog::Watchdog;

/// Whether the code took an input for what it should be, or refused it. Both are right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Taken,
    Refused,
}

impl<T, E> From<&Result<T, E>> for Verdict {
    fn from(result: &Result<T, E>) -> Self {
        if result.is_ok() { Self::Taken } else { Self::Refused }
    }
}

/// Tries inputs for as long as is wanted: a short round, or `AGENT_FUZZ_MINUTES`.
///
/// # Panics
///
/// When `judge` does, with the smallest input that makes it, and how to try that again. An input that takes more than some
/// seconds ends the process. Also when less than one input in twenty was taken.
pub(crate) fn fuzz<S>(target: &str, inputs: &S, judge: impl Fn(&S::Value) -> Verdict)
where
    S: Strategy,
    S::Value: Clone + Debug + Send + 'static,
{
    let wanted = Wanted::from_environment();
    if wanted.time.is_some() {
        watchdog::bound_memory();
    }
    let watchdog = Watchdog::start(target);
    let began = Instant::now();
    let (tried, taken) = (Cell::new(0_u64), Cell::new(0_u64));
    let mut round = wanted.first_seed;
    loop {
        watchdog.note_seed(round);
        let outcome = runner(round, wanted.inputs).run(inputs, |input| {
            let verdict = watchdog.watch(&input, || judge(&input));
            tried.set(tried.get() + 1);
            taken.set(taken.get() + u64::from(verdict == Verdict::Taken));
            Ok(())
        });
        if let Err(failure) = outcome {
            panic!("{failure}\nagain: AGENT_FUZZ_SEED={round} cargo test -p agent --lib fuzz");
        }
        if wanted.time.is_none_or(|time| began.elapsed() >= time) {
            break;
        }
        round += 1;
    }
    let (tried, taken, time) = (tried.get(), taken.get(), began.elapsed().as_secs());
    let result = format!(
        "{target}: {tried} inputs in {time} s, {taken} of them taken, seeds {} to {round}",
        wanted.first_seed
    );
    println!("{result}");
    if let Some(file) = wanted.result {
        std::fs::write(file, result).unwrap();
    }
    assert!(taken >= tried / 20, "{target}: only {taken} of {tried} inputs were taken");
}

struct Wanted {
    first_seed: u64,
    /// In one round.
    inputs: u32,
    time: Option<Duration>,
    /// A file for what came of it.
    result: Option<std::ffi::OsString>,
}

impl Wanted {
    fn from_environment() -> Self {
        let number = |name: &str| {
            let text = std::env::var(name).ok()?;
            Some(text.parse::<u64>().unwrap_or_else(|_| panic!("{name} is a number")))
        };
        let time = number("AGENT_FUZZ_MINUTES").map(Duration::from_mins);
        let first_seed = number("AGENT_FUZZ_SEED").unwrap_or(0);
        Self { first_seed, inputs: 2048, time, result: std::env::var_os("AGENT_FUZZ_RESULT") }
    }
}

fn runner(seed: u64, inputs: u32) -> TestRunner {
    let config = Config {
        cases: inputs,
        failure_persistence: None,
        max_shrink_iters: 4096,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::{mutate::mutated, *};

    fn complaint(judge: impl Fn(&mutate::Bytes) -> Verdict) -> Option<String> {
        let inputs = mutated(vec![b"limit 100 of 200".to_vec()], &["unlimited"]);
        let failed = catch_unwind(AssertUnwindSafe(|| fuzz("example", &inputs, judge))).err()?;
        Some(failed.downcast_ref::<String>().unwrap().clone())
    }

    #[test]
    fn what_breaks_is_found_and_made_small() {
        assert_eq!(complaint(|_| Verdict::Taken), None);
        for (what, breaks) in [
            ("an empty text", (|text: &[u8]| text.is_empty()) as fn(&[u8]) -> bool),
            ("a word", |text| text.windows(9).any(|part| part == b"unlimited")),
            ("a large number", |text| text.windows(20).any(|part| part == b"18446744073709551615")),
            ("a byte that is no text", |text| text.contains(&0xff)),
            ("twice the same", |text| {
                text.windows(10).any(|part| part == b"of 200 200" || part == b"limitlimit")
            }),
        ] {
            let found = complaint(|text| {
                assert!(!breaks(text.as_ref()), "broken");
                Verdict::Taken
            });
            let found = found.unwrap_or_else(|| panic!("{what} was not found"));
            assert!(found.contains("again: AGENT_FUZZ_SEED=0"), "{found}");
        }
    }

    #[test]
    fn a_target_whose_inputs_are_all_refused_is_none() {
        assert!(complaint(|_| Verdict::Refused).unwrap().contains("only 0 of 2048"));
    }
}
