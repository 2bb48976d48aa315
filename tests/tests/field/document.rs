//! `docs/servers.md` says what works. Each of its rows names the test that shows it, and each test has its row.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::Result;

#[test]
fn every_row_has_its_test() -> Result<()> {
    let document = fs::read_to_string(Path::new(ROOT).join("../docs/servers.md"))?;
    let last = |row: &str| {
        let cell = row.strip_suffix(" |")?.rsplit(" | ").next()?;
        Some(cell.strip_prefix('`')?.strip_suffix('`')?.to_owned())
    };
    let named: BTreeSet<String> = document.lines().filter_map(last).collect();

    let mut tests = BTreeSet::new();
    for file in fs::read_dir(Path::new(ROOT).join("tests/field"))? {
        let text = fs::read_to_string(file?.path())?;
        // Those of servers wait for clients.
        let functions = text.split("#[tokio::test]\nasync fn ").skip(1);
        tests.extend(functions.filter_map(|it| it.split('(').next()).map(str::to_owned));
    }
    assert_eq!(named, tests);
    Ok(())
}

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
