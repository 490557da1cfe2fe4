//! Whether the schema is there, and of the version that this library was made for.

use amends::StoreError;
use amends_migrations::LATEST;
use sqlx::PgPool;

use crate::error::{Fault, fault, store_error};

/// Checks that the migrations have been applied, and no newer ones.
///
/// # Errors
/// Returns [`StoreError::Schema`], which says what to do, or [`StoreError::Unavailable`].
pub async fn check(pool: &PgPool) -> Result<(), StoreError> {
    let applied: Result<Option<i64>, _> =
        sqlx::query_scalar("select max(version) from amends._sqlx_migrations where success").fetch_one(pool).await;
    let problem = match applied {
        Ok(Some(version)) if version == LATEST => return Ok(()),
        Ok(Some(version)) if version > LATEST => {
            format!("the schema amends is of version {version} and this program knows {LATEST}; update the program")
        }
        Ok(version) => format!(
            "the schema amends is of version {} and this program needs {LATEST}; apply the migrations: \
             `amends-relay migrate`, or amends_migrations::migrator() in code",
            version.unwrap_or(0)
        ),
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("42501") => {
            format!("this role may not read the schema amends ({error}); grant it usage and its privileges")
        }
        Err(error) if fault(&error) == Fault::Schema => "the schema amends is not there; apply the migrations: \
             `amends-relay migrate`, or amends_migrations::migrator() in code"
            .to_owned(),
        Err(error) => return Err(store_error(error)),
    };
    Err(StoreError::Schema(problem))
}
