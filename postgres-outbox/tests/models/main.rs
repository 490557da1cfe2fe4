//! Model checks of the outbox cursor and of the inbox. `docs/MODELS.md` says what each covers.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../../core/tests/models/check.rs"]
mod check;
mod cursor;
mod inbox;
