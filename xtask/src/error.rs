//! Why a command of xtask could not do its work.

use std::io;

/// Why a command could not do its work, as one message for the developer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Something that only the developer can put right.
    #[error("{0}")]
    Failed(String),
    /// A file or a process could not be used.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was attempted, as in "open the lock".
        what: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// A command or a file operation of xshell failed; its message names which.
    #[error(transparent)]
    Shell(#[from] xshell::Error),
}

/// The result of a command of xtask.
pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error whose message is `message`.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::Failed(message.into())
    }

    /// Makes an [`io::Error`] say what was attempted.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        |source| Self::Io { what, source }
    }
}
