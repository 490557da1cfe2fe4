//! What an error of the database means for the write that met it.

use amends::{Error, StoreError};

/// What to do about a failed statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The session or the server is gone; the same statement may succeed on another session.
    Connection,
    /// Somebody holds a lock that it needs, or it lost a deadlock.
    Contention,
    /// The rows themselves cannot be written.
    Data,
    /// The schema is not there, or not ours to use.
    Schema,
}

pub(crate) fn fault(error: &sqlx::Error) -> Fault {
    let sqlx::Error::Database(database) = error else {
        return match error {
            sqlx::Error::Encode(_) | sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => Fault::Data,
            _ => Fault::Connection,
        };
    };
    match database.code().as_deref().unwrap_or_default() {
        // lock_not_available, deadlock_detected, serialization_failure, query_canceled (it took too long)
        "55P03" | "40P01" | "40001" | "57014" => Fault::Contention,
        // undefined_table, undefined_column, undefined_function, invalid_schema_name, insufficient_privilege
        "42P01" | "42703" | "42883" | "3F000" | "42501" => Fault::Schema,
        // The server is full, shutting down, starting up, out of connections, or a standby now (25006); or its disk is full.
        "25006" => Fault::Connection,
        code if ["08", "53", "57", "58"].iter().any(|class| code.starts_with(class)) => Fault::Connection,
        // Also an internal error (XX000): it is the rows' until one of them stands alone.
        _ => Fault::Data,
    }
}

/// Whether the database is to blame for a failed statement, and not the statement: it is away, full, starting or a standby,
/// or it chose this transaction to end a deadlock or a conflict. The same statement may succeed in another transaction.
///
/// A statement is to blame itself that took too long (57014), needed more memory or temporary files than there are (53200, 53400), or
/// has more parameters than the protocol can carry, which sqlx calls an error of the protocol.
pub fn is_unavailable(error: &sqlx::Error) -> bool {
    use sqlx::Error as E;
    match error {
        E::Database(database) => {
            !matches!(database.code().as_deref(), Some("57014" | "53200" | "53400"))
                && matches!(fault(error), Fault::Connection | Fault::Contention)
        }
        E::Io(_) | E::Tls(_) | E::PoolTimedOut | E::PoolClosed | E::WorkerCrashed | E::BeginFailed => true,
        _ => false,
    }
}

/// Whether the server has ended the statement (`query_canceled`); the connection is as good as before.
pub(crate) fn took_too_long(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.code().as_deref() == Some("57014"))
}

/// Whether it is the rows that cannot be written, however often it is tried: a value that the type does not take (class 22), or a
/// constraint that it breaks (23).
pub fn is_refused(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Encode(_) => true,
        sqlx::Error::Database(database) => {
            database.code().is_some_and(|code| code.starts_with("22") || code.starts_with("23"))
        }
        _ => false,
    }
}

pub(crate) fn store_error(error: sqlx::Error) -> StoreError {
    match fault(&error) {
        Fault::Connection | Fault::Contention => StoreError::Unavailable(Box::new(error)),
        Fault::Data => StoreError::Refused(Box::new(error)),
        Fault::Schema => StoreError::Schema(format!(
            "{error}; apply the migrations (`amends-relay migrate`) and grant this role the use of schema amends"
        )),
    }
}

pub(crate) fn start_error(error: sqlx::Error) -> Error {
    Error::Store(store_error(error))
}
