//! Model checks of who may move a saga, and of what its participants must remember. `docs/MODELS.md` says what each covers.
#![allow(clippy::unwrap_used, missing_docs)]

mod barrier;
mod check;
mod ownership;
