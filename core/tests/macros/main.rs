//! What `#[saga]` makes of what it accepts, and the one message that each mistake gives.

// expect-test writes raw strings.
#![allow(missing_docs, clippy::needless_raw_string_hashes)]

use std::sync::{Arc, Mutex};

mod definition;
mod kinds;
mod receives;

/// The messages of `tests/rejected` were written by this compiler; another words its own part differently.
const WRITTEN_BY: &str = "1.95";

#[test]
fn each_mistake_gives_one_message_on_its_token() {
    let version = std::process::Command::new("rustc").arg("--version").output().expect("rustc runs");
    let version = String::from_utf8_lossy(&version.stdout);
    if version.starts_with(&format!("rustc {WRITTEN_BY}")) {
        // Without a case that passes, trybuild checks them all at once and makes no code: a tenth of the time.
        trybuild::TestCases::new().compile_fail("tests/rejected/*.rs");
    } else {
        eprintln!("skipped the compile-fail cases: they were written by rustc {WRITTEN_BY}, this is {version}");
    }
}

/// What the methods of a saga write down.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    fn note(&self, text: String) {
        self.0.lock().expect("nobody panics with the lock").push(text);
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().expect("nobody panics with the lock"))
    }
}
