//! What every store must do, on the store in memory. `amends-postgres` runs the same rules on PostgreSQL.
#![allow(missing_docs)]

amends::testing::conformance::store_conformance!(amends::MemoryStore);
