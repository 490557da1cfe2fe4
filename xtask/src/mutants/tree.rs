//! The worktree in which mutants live: a copy of what is committed, gone when xtask is.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use xshell::{Shell, cmd};

use super::patch::Mutant;
use crate::error::{Error, Result};
use crate::workspace;

const GUARD: &str = include_str!("guard.sh");

/// A worktree of `HEAD` under `target/mutants`.
#[derive(Debug)]
pub(crate) struct Tree {
    place: PathBuf,
    /// Removes the worktree when this process ends, be it by Ctrl-C or SIGKILL.
    guard: Child,
}

impl Tree {
    /// # Errors
    /// When git cannot make it, or the folder cannot be locked.
    pub(crate) fn make() -> Result<Self> {
        let dir = folder();
        let failed = || Error::io(format!("lock {}", dir.display()));
        fs::create_dir_all(&dir).map_err(failed())?;
        let lock = File::create(dir.join("lock")).map_err(failed())?;
        if lock.try_lock().is_err() {
            eprintln!("waiting for another `cargo xtask mutants`");
            lock.lock().map_err(failed())?;
        }
        let place = dir.join("tree");
        let shell = workspace::shell()?;
        // One that lost its guard too.
        cmd!(shell, "git worktree remove --force --force {place}").quiet().ignore_status().ignore_stderr().run()?;
        fs::remove_dir_all(&place).ok();
        cmd!(shell, "git worktree prune").quiet().run()?;
        cmd!(shell, "git worktree add --quiet --detach {place} HEAD").quiet().run()?;
        let guard = Command::new("sh")
            .args(["-c", GUARD, "guard.sh"])
            .arg(&place)
            .current_dir(workspace::root())
            // A group of its own, which Ctrl-C does not reach.
            .process_group(0)
            .stdin(Stdio::piped())
            // It writes nothing there: it holds the lock until it has done its work.
            .stdout(lock)
            .stderr(Stdio::null())
            .spawn()
            .map_err(Error::io("run sh"))?;
        Ok(Self { place, guard })
    }

    /// A shell in the worktree.
    pub(crate) fn shell(&self) -> Result<Shell> {
        let shell = Shell::new()?;
        shell.change_dir(&self.place);
        Ok(shell)
    }

    /// Whether the bug can still be seeded: the code around it may have changed.
    pub(crate) fn takes(&self, mutant: &Mutant) -> Result<bool> {
        let (shell, file) = (self.shell()?, &mutant.file);
        Ok(cmd!(shell, "git apply --check {file}").quiet().ignore_stderr().run().is_ok())
    }

    /// Seeds the bug.
    pub(crate) fn apply(&self, mutant: &Mutant) -> Result<()> {
        let (shell, file) = (self.shell()?, &mutant.file);
        Ok(cmd!(shell, "git apply {file}").quiet().run()?)
    }

    /// Makes the worktree what is committed.
    pub(crate) fn revert(&self) -> Result<()> {
        let shell = self.shell()?;
        cmd!(shell, "git reset --quiet --hard").quiet().run()?;
        cmd!(shell, "git clean --quiet --force -d").quiet().run()?;
        Ok(())
    }

    /// Says which process group must not outlive this process; none from now on if `None`.
    pub(crate) fn runs(&self, group: Option<u32>) -> Result<()> {
        let line = group.map(|group| group.to_string()).unwrap_or_default();
        let Some(mut input) = self.guard.stdin.as_ref() else { return Ok(()) };
        writeln!(input, "{line}").map_err(Error::io("write to the guard of the worktree"))
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        // This ends its input, too.
        let _ = self.guard.wait();
    }
}

/// Where the worktree is, and what is built of it.
pub(crate) fn folder() -> PathBuf {
    workspace::target().join("mutants")
}
