//! Installs the packages of servers that the machine does not have.

use std::path::Path;
use std::process::{Command, Stdio};

use super::process;
use crate::error::{Error, Result};

const SCRIPT: &str = include_str!("install.sh");

/// Whether [`install`] has what it needs: apt-get, and root or sudo without a password.
pub(crate) fn is_possible() -> bool {
    Path::new("/usr/bin/apt-get").exists() && (process::is_root() || has_sudo())
}

/// Installs Debian packages without starting the servers in them.
///
/// # Errors
/// When apt-get fails; its output went to stderr.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    eprintln!("installing {} with apt-get", packages.join(" and "));
    let mut command = if process::is_root() {
        Command::new("sh")
    } else {
        let mut sudo = Command::new("sudo");
        sudo.args(["-n", "sh"]);
        sudo
    };
    // To stderr, as stdout is for what `services up` exports.
    let script = format!("{{\n{SCRIPT}\n}} >&2");
    let status = command
        .args(["-c", &script, "install.sh"])
        .args(packages)
        .stdin(Stdio::null())
        .status()
        .map_err(Error::io("run apt-get"))?;
    if status.success() {
        Ok(())
    } else {
        Err(Error::failed(format!("apt-get could not install {}", packages.join(" and "))))
    }
}

fn has_sudo() -> bool {
    process::succeeds(Command::new("sudo").args(["-n", "true"]))
}
