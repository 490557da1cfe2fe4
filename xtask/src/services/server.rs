//! What the private servers have in common.

use std::fmt::Debug;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::error::{Error, Result};

/// A private server: one that xtask starts and stops, for this workspace alone.
pub(crate) trait Server: Debug + Sync {
    /// Where clients find it, once it has been started.
    fn url(&self) -> Option<String>;

    /// Whether it takes connections.
    fn is_up(&self) -> bool;

    /// Starts it and waits until it takes connections.
    ///
    /// # Idempotency
    /// May be repeated, also after a run that was killed at any point.
    fn start(&self) -> Result<()>;

    /// Stops it, if it runs, and waits until it is gone.
    fn stop(&self) -> Result<()>;
}

/// Runs `command` to its end; what it printed is shown only when it fails.
///
/// # Errors
/// When the command cannot be run or does not exit with 0.
pub(crate) fn run(command: &mut Command, name: &str) -> Result<()> {
    let output = command.output().map_err(Error::io(format!("run {name}")))?;
    if output.status.success() {
        return Ok(());
    }
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8_lossy(&printed);
    Err(Error::failed(format!("{name} failed ({})\n{}", output.status, printed.trim_end())))
}

/// Adds the end of a server's log to an error.
pub(crate) fn with_log(error: &Error, log: &Path) -> Error {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    let end = lines[lines.len().saturating_sub(20)..].join("\n");
    Error::failed(format!("{error}\nthe end of {}:\n{end}", log.display()))
}
