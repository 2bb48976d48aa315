//! `cargo xtask fuzz`: other inputs than the tests try, for as long as is wanted.

use std::{
    fs,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};

use crate::{build, command, layout::Profile, setup};

/// What can be tried, and the test that does.
pub(crate) const TARGETS: [(&str, &str); 7] = [
    ("state-file", "daemon::state::state_file::fuzz::no_state_that_can_be_read_breaks_the_agent"),
    (
        "control-socket",
        "daemon::control::server::fuzz::no_request_breaks_the_server_and_each_has_an_end",
    ),
    ("sock-diag", "host::sock_diag::fuzz::no_answer_breaks_the_list_of_sockets"),
    ("proc-texts", "host::fuzz::no_text_breaks_who_reads_it"),
    ("proc-words", "host::fuzz::no_words_of_a_process_change_what_the_kernel_says_of_it"),
    ("ring-buffer", "datapath::events::fuzz::no_record_is_taken_for_another_one"),
    ("configuration", "cli::config::fuzz::no_file_breaks_the_command_line"),
];

/// Tries one target, or one after the other, and says at the end how many inputs that were.
///
/// Without a seed it is the time of day, which is printed. Rounds count on from it, far enough apart for two runs.
///
/// # Errors
///
/// When a target has failed; it has said how to try that again.
pub(crate) fn run(
    root: &Path,
    minutes: u32,
    seed: Option<u64>,
    target: Option<&str>,
) -> Result<()> {
    setup::for_build(root)?;
    build::run(root, Profile::Dev)?;
    #[expect(clippy::disallowed_methods, reason = "any number that is another one each time")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seed = seed.unwrap_or(now.as_secs() * 1_000);
    let result = root.join("target/fuzz-result");
    let mut results = Vec::new();
    for (name, test) in TARGETS.iter().filter(|(name, _)| target.is_none_or(|it| it == *name)) {
        // A test that is called otherwise now is not run, which is no failure of the tests.
        let _: Result<(), _> = fs::remove_file(&result);
        command::run(
            command::cargo(root)
                .args(["test", "--package", "agent", "--lib", "--", "--exact", "--nocapture", test])
                .env("AGENT_FUZZ_MINUTES", minutes.to_string())
                .env("AGENT_FUZZ_SEED", seed.to_string())
                .env("AGENT_FUZZ_RESULT", &result),
        )?;
        ensure!(result.exists(), "there is no test `{test}` any more: name the one in its place");
        results.push(
            fs::read_to_string(&result).with_context(|| format!("read what came of {name}"))?,
        );
    }
    println!("{}", results.join("\n"));
    Ok(())
}
