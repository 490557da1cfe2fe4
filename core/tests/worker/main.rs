//! The worker, on the store in memory and on tokio's paused clock.
#![allow(clippy::unwrap_used, missing_docs)]

mod data;
mod deaths;
mod flaky;
mod operators;
mod outages;
mod paths;
mod script;
mod shifts;
mod stage;
mod starts;
mod trials;
mod turns;
