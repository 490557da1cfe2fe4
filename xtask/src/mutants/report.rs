//! What came of it, as a table that a page can hold.

use std::fmt::Write;
use std::time::Duration;

use super::patch::{Claim, Mutant};

/// One claim, put to the test.
#[derive(Debug)]
pub(crate) struct Row<'a> {
    pub(crate) mutant: &'a Mutant,
    pub(crate) claim: &'a Claim,
    /// The tests that failed, or what happened instead.
    pub(crate) caught: Result<String, String>,
    pub(crate) build: Duration,
    pub(crate) tests: Duration,
}

/// In Markdown. The seconds are those of the tests, and of building them before.
pub(crate) fn table(rows: &[Row<'_>]) -> String {
    let mut text =
        "| mutant | what it breaks | layer | caught by | tests | build |\n|---|---|---|---|--:|--:|\n".to_owned();
    for Row { mutant, claim, caught, build, tests } in rows {
        let caught = match caught {
            Ok(tests) => tests.clone(),
            Err(why) => format!("**nothing: it {why}**"),
        };
        let (build, tests) = (build.as_secs_f64(), tests.as_secs_f64());
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {} | {} | {} | {caught} | {tests:.1} s | {build:.0} s |",
            mutant.name, mutant.bug, claim.layer
        );
    }
    text
}
