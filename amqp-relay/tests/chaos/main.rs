//! Everything is killed again and again, and every event takes effect once, in the order of its key.
//!
//! 5 000 events in the test command; `cargo xtask chaos` takes 100 000.
#![allow(missing_docs, clippy::unwrap_used)]

mod own_broker;
#[path = "../support/mod.rs"]
mod support;
