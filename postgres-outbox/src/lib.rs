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

mod claim;
mod columns;
mod error;
mod hook;
mod load;
pub mod schema;
mod start;
mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod tx;
mod workers;
mod writer;

#[cfg(feature = "testing")]
pub use hook::set_hook;
pub use store::PgStore;
pub use tx::StepTx;
