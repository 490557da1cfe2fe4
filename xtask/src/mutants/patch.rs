//! A mutant: a patch, and above it the bug in a sentence and the tests that must catch it.
//!
//! ```text
//! A negative confirm counts as a positive one.
//!
//! relay: cargo test -p amends-relay --test relay a_message_that_the_broker_refuses
//! hangs after: 60 s
//!
//! diff --git …
//! ```
//!
//! Each line that begins with a layer is a claim of its own. The last line is there only if the tests cannot end.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::workspace;

/// The layers of tests, from pure functions to real servers (DESIGN, section 11).
const LAYERS: [&str; 9] =
    ["machine", "semantics", "worker", "conformance", "model", "explorer", "store", "relay", "example"];

/// A seeded bug.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mutant {
    /// The name of the file, without its extension.
    pub(crate) name: String,
    pub(crate) file: PathBuf,
    /// What is wrong, in one sentence.
    pub(crate) bug: String,
    pub(crate) claims: Vec<Claim>,
    /// The tests need not end by themselves: it is enough that they take longer than this.
    pub(crate) hangs_after: Option<Duration>,
}

/// Which tests must catch it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) layer: &'static str,
    /// The options of `cargo test` that choose a test binary.
    pub(crate) target: Vec<String>,
    /// Parts of the names of tests; each of them must fail.
    pub(crate) filters: Vec<String>,
}

/// The mutants whose names contain one of `names`, or all, in the order of their numbers.
pub(crate) fn all(names: &[String]) -> Result<Vec<Mutant>> {
    let dir = workspace::root().join("xtask/mutants");
    let failed = |what: &str| Error::io(format!("{what} {}", dir.display()));
    let mut files = Vec::new();
    for entry in fs::read_dir(&dir).map_err(failed("list"))? {
        let file = entry.map_err(failed("list"))?.path();
        if file.extension().is_some_and(|extension| extension == "patch") {
            files.push(file);
        }
    }
    // Those of one crate follow each other, so that it is not built more often than need be.
    files.sort();
    let mut mutants = Vec::new();
    for file in files {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if names.is_empty() || names.iter().any(|wanted| name.contains(wanted)) {
            let text = fs::read_to_string(&file).map_err(failed("read a patch in"))?;
            mutants.push(parse(name, file, &text)?);
        }
    }
    if mutants.is_empty() { Err(Error::failed("there is no such mutant in xtask/mutants")) } else { Ok(mutants) }
}

/// The claims that name the same test binary, as one.
pub(crate) fn merge<'a>(claims: impl Iterator<Item = &'a Claim>) -> Vec<Claim> {
    let mut merged: Vec<Claim> = Vec::new();
    for claim in claims {
        if let Some(same) = merged.iter_mut().find(|other| other.target == claim.target) {
            let new: Vec<_> = claim.filters.iter().filter(|filter| !same.filters.contains(filter)).cloned().collect();
            same.filters.extend(new);
        } else {
            merged.push(claim.clone());
        }
    }
    merged
}

fn parse(name: String, file: PathBuf, text: &str) -> Result<Mutant> {
    let (mut bug, mut claims, mut hangs_after) = (Vec::new(), Vec::new(), None);
    for line in text.lines().take_while(|line| !line.starts_with("diff ")) {
        let wrong = |why: &str| Error::failed(format!("xtask/mutants/{name}.patch: {why}: `{line}`"));
        let layer = |layer: &&str| line.strip_prefix(*layer).is_some_and(|rest| rest.starts_with(':'));
        if let Some(layer) = LAYERS.into_iter().find(layer) {
            let claim = claim(layer, &line[layer.len() + 1..]);
            claims.push(claim.ok_or_else(|| wrong("no `cargo test` with a test binary and a test's name"))?);
        } else if let Some(limit) = line.strip_prefix("hangs after:") {
            let seconds = limit.trim().strip_suffix(" s").and_then(|seconds| seconds.parse().ok());
            hangs_after = Some(Duration::from_secs(seconds.ok_or_else(|| wrong("no number of seconds"))?));
        } else if claims.is_empty() {
            bug.push(line.trim());
        } else if !line.trim().is_empty() {
            return Err(wrong("unknown line"));
        }
    }
    let bug = bug.join(" ").trim().to_owned();
    if bug.is_empty() || claims.is_empty() {
        return Err(Error::failed(format!("xtask/mutants/{name}.patch says no bug, or not what must catch it")));
    }
    Ok(Mutant { name, file, bug, claims, hangs_after })
}

fn claim(layer: &'static str, command: &str) -> Option<Claim> {
    let (mut target, mut filters) = (Vec::new(), Vec::new());
    let mut words = command.trim().strip_prefix("cargo test ")?.split_whitespace().map(str::to_owned);
    while let Some(word) = words.next() {
        if word == "--lib" {
            target.push(word);
        } else if word.starts_with('-') {
            target.extend([word, words.next()?]);
        } else {
            filters.push(word);
        }
    }
    (!target.is_empty() && !filters.is_empty()).then_some(Claim { layer, target, filters })
}

impl Claim {
    /// A test that it names and that is not among these.
    pub(crate) fn missing(&self, tests: &[String]) -> Option<&str> {
        let is_missing = |filter: &&String| !tests.iter().any(|test| test.contains(*filter));
        self.filters.iter().find(is_missing).map(String::as_str)
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cargo test {} {}", self.target.join(" "), self.filters.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Mutant> {
        parse("00-it".into(), PathBuf::new(), text)
    }

    #[test]
    fn a_header_says_the_bug_and_what_must_catch_it() {
        let text = "It is\nwrong.\n\nstore: cargo test -p it --test appends one two\nhangs after: 9 s\n\ndiff --git a b\nrelay:";
        let mutant = parsed(text).unwrap();
        assert_eq!(mutant.bug, "It is wrong.");
        assert_eq!(mutant.hangs_after, Some(Duration::from_secs(9)));
        assert_eq!(mutant.claims.len(), 1);
        assert_eq!(mutant.claims[0].layer, "store");
        assert_eq!(mutant.claims[0].to_string(), "cargo test -p it --test appends one two");
    }

    #[test]
    fn a_header_that_says_less_is_refused() {
        for text in [
            "",
            "It is wrong.",
            "store: cargo test -p it --test appends one",
            "It is wrong.\nstore: cargo test -p it --test appends",
            "It is wrong.\nstore: cargo test one",
            "It is wrong.\nstore: cargo test --lib one\nhangs after: long",
            "It is wrong.\nstore: cargo test --lib one\nstrore: cargo test --lib one",
        ] {
            assert!(parsed(text).is_err(), "{text}");
        }
    }

    #[test]
    fn claims_on_one_test_binary_are_run_at_once() {
        let of = |filters: &str| claim("store", &format!("cargo test -p it --test a {filters}")).unwrap();
        let other = claim("store", "cargo test -p it --test b x").unwrap();
        let merged = merge([of("x y"), other.clone(), of("z x")].iter());
        assert_eq!(merged, [of("x y z"), other]);
    }

    #[test]
    fn every_patch_has_a_header() {
        all(&[]).unwrap();
    }
}
