//! What the relay promises while the broker is in trouble: nothing lost, order kept per key, the others flowing, and recovery
//! without a restart.

#![allow(missing_docs, clippy::unwrap_used)]

mod own_broker;
mod queues;
#[path = "../support/mod.rs"]
mod support;
