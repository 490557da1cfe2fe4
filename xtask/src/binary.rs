//! Runs a binary of the examples against real servers.

use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::error::{Error, Result};
use crate::{services, workspace};

/// Builds `amends-examples`' binary `name` and becomes it.
///
/// xtask is replaced, as cargo was by xtask: the binary's exit status, signals and terminal are
/// its own, and a Ctrl-C reaches nobody else.
pub(crate) fn run(name: &str, args: &[String]) -> Result<()> {
    let urls = services::up()?;
    let shell = workspace::shell()?;
    let build = ["build", "--profile", "demo", "-p", "amends-examples", "-p", "amends-relay", "--bins"];
    workspace::cargo(&shell, &build).quiet().run()?;
    let binary = workspace::target().join("demo").join(name);
    let error = Command::new(&binary)
        .args(args)
        .env(services::DATABASE_URL, urls.database)
        .env(services::AMQP_URL, urls.amqp)
        .exec();
    Err(Error::io(format!("run {}", binary.display()))(error))
}
