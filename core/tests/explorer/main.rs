//! The explorer finds what is wrong with a saga, and nothing where nothing is.
#![allow(clippy::unwrap_used, missing_docs)]

mod barrier;
mod correct;
mod counts;
mod harness;
mod limits;
mod planted;
mod pruning;
mod shop;
