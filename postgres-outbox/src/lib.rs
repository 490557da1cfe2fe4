//! Sagas, outbox and inbox of [`amends`] in PostgreSQL.
//!
//! [`PgStore`] keeps sagas; a tx step gets a [`StepTx`].
//!
//! ```no_run
//! use amends::Sagas;
//! use amends_postgres::PgStore;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let pool = sqlx::PgPool::connect("postgres://localhost/orders").await?;
//! amends_migrations::migrator().run(&pool).await?;
//! let sagas = Sagas::builder(PgStore::connect(pool).await?).build()?;
//! # Ok(())
//! # }
//! ```

mod barrier;
mod bounded;
mod claim;
mod columns;
pub mod cursor;
mod effects;
mod entry;
mod error;
mod hints;
mod hook;
mod inbox;
mod load;
mod lock;
pub mod operator;
mod outbox;
mod partitions;
mod payloads;
mod reply;
mod retention;
mod schedule;
pub mod schema;
mod start;
pub mod status;
mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod tx;
mod workers;
mod writer;

pub use barrier::{Barrier, Passage};
pub use entry::{Entry, Turn};
pub use error::{is_refused, is_unavailable};
pub use hints::Hints;
#[cfg(feature = "testing")]
pub use hook::set_hook;
pub use inbox::{Inbox, Inserted, Received};
pub use outbox::Outbox;
pub use payloads::PgPayloads;
pub use reply::{Delivered, deliver_reply};
pub use retention::{Retained, Retention};
pub use store::PgStore;
pub use tx::StepTx;
