//! What every store must do, on PostgreSQL: the same rules that `amends` keeps in memory.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "support/backend.rs"]
mod backend;

use amends::testing::conformance::store_conformance;
use backend::Here;

store_conformance!(Here);
