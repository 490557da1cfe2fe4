//! Where the workspace and its build output are, and how to call cargo in it.

use std::env;
use std::path::{Path, PathBuf};

use xshell::{Cmd, Shell};

use crate::error::Result;

/// The root of the workspace.
pub(crate) fn root() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest)
}

/// The folder of build output.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// A shell whose current folder is the root of the workspace.
pub(crate) fn shell() -> Result<Shell> {
    let shell = Shell::new()?;
    shell.change_dir(root());
    Ok(shell)
}

/// A call of the cargo that runs this xtask.
pub(crate) fn cargo<'a>(shell: &'a Shell, args: &[&str]) -> Cmd<'a> {
    let mut cmd = shell.cmd(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // `cargo run` describes xtask itself in these; the build scripts of ring and others run
    // again whenever they change, so that each `cargo xtask` would build half the world anew.
    for (name, _) in env::vars_os() {
        let about_xtask = name.to_str().is_some_and(|name| {
            ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"]
                .iter()
                .any(|prefix| name.starts_with(prefix))
        });
        if about_xtask {
            cmd = cmd.env_remove(name);
        }
    }
    cmd.args(args)
}
