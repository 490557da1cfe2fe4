//! A child process that never outlives the demo, however the demo ends.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use shop::service::Failure;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child as Shell, ChildStdin, Command};
use tokio::time::{sleep, timeout};

/// Runs the program, says its process id, and ends it when standard input does: that is a pipe from the demo, which
/// the system closes even if the demo is killed.
const KEEPER: &str = r#"
exec 3<&0
"$@" 3<&- </dev/null >&2 & pid=$!
{ cat <&3 >/dev/null; kill $pid; } 2>/dev/null & keeper=$!
echo $pid
wait $pid; status=$?
kill $keeper 2>/dev/null
exit $status
"#;

/// A running process.
#[derive(Debug)]
pub(crate) struct Child {
    name: String,
    pid: u32,
    shell: Shell,
    stdin: Option<ChildStdin>,
}

/// How long a process may take to end in good order.
const GRACE: Duration = Duration::from_secs(8);

impl Child {
    /// Starts a program whose output goes to the end of `log`.
    pub(crate) async fn spawn(
        name: &str,
        program: &Path,
        args: &[String],
        env: &[(&str, String)],
        log: &Path,
    ) -> Result<Self, Failure> {
        let failed = |error| format!("cannot start {name} ({}): {error}", program.display());
        if !program.is_file() {
            return Err(failed("there is no such file; `cargo xtask demo` builds it".into()).into());
        }
        let log = File::options().create(true).append(true).open(log)?;
        let mut shell = Command::new("sh")
            .args(["-c", KEEPER, "sh"])
            .arg(program)
            .args(args)
            .envs(env.iter().map(|(name, value)| (*name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            // A group of its own, so that a Ctrl-C in the terminal reaches the demo alone, which then ends its children.
            .process_group(0)
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        let stdin = shell.stdin.take();
        let mut line = String::new();
        if let Some(stdout) = shell.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).await?;
        }
        let pid = line.trim().parse().map_err(|_| failed("its keeper did not say its process id".into()))?;
        Ok(Self { name: name.to_owned(), pid, shell, stdin })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Fails if it has ended by itself.
    pub(crate) fn check(&mut self) -> Result<(), Failure> {
        match self.shell.try_wait()? {
            None => Ok(()),
            Some(status) => Err(format!("{} (process {}) has ended by itself: {status}", self.name, self.pid).into()),
        }
    }

    /// `kill -9`: it is gone when this returns.
    pub(crate) async fn kill(&mut self) {
        self.signal("KILL").await;
        // The keeper ends with it.
        let _ = self.shell.wait().await;
    }

    /// Holds it up for a while, and kills it shortly after it goes on: in the middle of what has piled up.
    pub(crate) async fn hold_and_kill(&mut self, hold: Duration, then: Duration) {
        self.signal("STOP").await;
        sleep(hold).await;
        self.signal("CONT").await;
        sleep(then).await;
        self.kill().await;
    }

    /// Asks it to end, waits for that, and loses patience.
    pub(crate) async fn stop(&mut self) {
        drop(self.stdin.take());
        if timeout(GRACE, self.shell.wait()).await.is_err() {
            eprintln!("{} does not end; killed", self.name);
            self.kill().await;
        }
    }

    async fn signal(&self, signal: &str) {
        let kill = format!("kill -{signal} {} 2>/dev/null", self.pid);
        // Fails if it has ended already, which is what was wanted.
        let _ = Command::new("sh").args(["-c", &kill]).status().await;
    }
}
