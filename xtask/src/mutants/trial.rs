//! Runs tests in the worktree, as often as they end and as long as they may.

use std::fmt;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::patch::Claim;
use super::tree::{self, Tree};
use crate::error::{Error, Result};
use crate::services::{self, Urls};
use crate::workspace;

/// What is said of code that does not compile, which nothing has caught.
pub(crate) const NO_COMPILE: &str = "does not compile; see target/mutants/build.log";

/// Where tests are run: a worktree, a folder of build output, and the servers.
#[derive(Debug)]
pub(crate) struct Lab<'a> {
    tree: &'a Tree,
    urls: &'a Urls,
}

/// How tests ended.
#[derive(Debug)]
pub(crate) enum Tested {
    /// All that ran passed; their names.
    Passed(Vec<String>),
    /// Some failed; their names.
    Failed(Vec<String>),
    /// Something else went wrong.
    Broke,
    /// They did not end in time and were killed.
    Hung,
}

impl<'a> Lab<'a> {
    pub(crate) fn new(tree: &'a Tree, urls: &'a Urls) -> Self {
        Self { tree, urls }
    }

    /// Builds the tests, and says how long it took; `None` if they do not compile.
    pub(crate) fn build(&self, claim: &Claim) -> Result<Option<Duration>> {
        let (status, time) = self.cargo(claim, &["--no-run"], &tree::folder().join("build.log"), Duration::MAX)?;
        Ok(status.is_some_and(|status| status.success()).then_some(time))
    }

    /// Runs tests that have been built, and says how long it took.
    pub(crate) fn test(&self, claim: &Claim, limit: Duration) -> Result<(Tested, Duration)> {
        let log = tree::folder().join("test.log");
        let mut args = vec!["--"];
        args.extend(claim.filters.iter().map(String::as_str));
        let (status, time) = self.cargo(claim, &args, &log, limit)?;
        let output = fs::read_to_string(&log).map_err(Error::io(format!("read {}", log.display())))?;
        let (passed, failed) = (named(&output, "ok"), named(&output, "FAILED"));
        let tested = match status {
            None => Tested::Hung,
            Some(status) if status.success() => Tested::Passed(passed),
            Some(_) if failed.is_empty() => Tested::Broke,
            Some(_) => Tested::Failed(failed),
        };
        Ok((tested, time))
    }

    /// Runs `cargo test` with its output in `log`; `None` if it took too long.
    fn cargo(
        &self,
        claim: &Claim,
        args: &[&str],
        log: &Path,
        limit: Duration,
    ) -> Result<(Option<ExitStatus>, Duration)> {
        let output = File::create(log).map_err(Error::io(format!("write {}", log.display())))?;
        let and_errors = output.try_clone().map_err(Error::io(format!("write {}", log.display())))?;
        let shell = self.tree.shell()?;
        let mut command = Command::from(workspace::cargo(&shell, &["test"]).args(&claim.target).args(args));
        command
            .env(services::DATABASE_URL, &self.urls.database)
            .env(services::AMQP_URL, &self.urls.amqp)
            .env("CARGO_TARGET_DIR", tree::folder().join("target"))
            // Nobody debugs a mutant, and it is built and linked in half the time.
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(and_errors)
            // Tests start processes of their own; all of them can be ended together.
            .process_group(0);
        let start = Instant::now();
        let mut child = command.spawn().map_err(Error::io("run cargo"))?;
        let group = child.id();
        self.tree.runs(Some(group))?;
        let status = loop {
            let status = child.try_wait().map_err(Error::io("wait for cargo"))?;
            if status.is_some() || start.elapsed() > limit {
                break status;
            }
            sleep(Duration::from_millis(50));
        };
        let time = start.elapsed();
        if status.is_none() {
            let kill = ["-c", "kill -s KILL -- \"-$1\"", "sh", &group.to_string()];
            Command::new("sh").args(kill).status().map_err(Error::io("run sh"))?;
            child.wait().map_err(Error::io("wait for cargo"))?;
        }
        self.tree.runs(None)?;
        Ok((status, time))
    }
}

/// The tests of which the harness says that they ended so.
fn named(output: &str, how: &str) -> Vec<String> {
    let name = |line: &str| Some(line.strip_prefix("test ")?.strip_suffix(how)?.strip_suffix(" ... ")?.to_owned());
    output.lines().filter_map(name).collect()
}

impl fmt::Display for Tested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed(tests) => write!(f, "passes {} tests", tests.len()),
            Self::Failed(tests) => write!(f, "fails {}", tests.join(", ")),
            Self::Broke => f.write_str("ends without a verdict; see target/mutants/test.log"),
            Self::Hung => f.write_str("does not end"),
        }
    }
}
