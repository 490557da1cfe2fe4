//! Every check that CI runs.

use std::fmt;
use std::time::{Duration, Instant};

use xshell::{Cmd, Shell};

use crate::error::{Error, Result};
use crate::services::{self, Urls};
use crate::workspace;

/// In the names of the tests that each run a `RabbitMQ` of their own.
const OWN_BROKER: &str = "own_broker::";

/// One check: a command, or why there is none.
struct Check<'a> {
    name: &'static str,
    command: std::result::Result<Cmd<'a>, &'static str>,
}

/// How a check went.
enum Outcome {
    Passed(Duration),
    Failed(Duration),
    Skipped(&'static str),
    NotRun,
}

/// Brings the servers up and runs every check, up to the first that fails; then sums up.
///
/// # Errors
/// When a server cannot be had or a check fails.
pub(crate) fn run(runner_args: &[String]) -> Result<()> {
    let start = Instant::now();
    heading("services");
    let urls = services::up()?;
    let own_broker = services::can_run_own_broker()?;
    let mut outcomes = vec![("services", Outcome::Passed(start.elapsed()))];

    let shell = workspace::shell()?;
    let mut failure = None;
    for Check { name, command } in checks(&shell, &urls, own_broker, runner_args) {
        let outcome = match command {
            _ if failure.is_some() => Outcome::NotRun,
            Err(why) => Outcome::Skipped(why),
            Ok(command) => {
                heading(name);
                let start = Instant::now();
                match command.run() {
                    Ok(()) => Outcome::Passed(start.elapsed()),
                    Err(error) => {
                        failure = Some(error);
                        Outcome::Failed(start.elapsed())
                    }
                }
            }
        };
        outcomes.push((name, outcome));
    }

    heading("summary");
    for (name, outcome) in outcomes {
        eprintln!("{name:<16}{outcome}");
    }
    eprintln!("{:<16}{}", "total", Outcome::Passed(start.elapsed()).seconds());
    failure.map_or(Ok(()), |error| Err(Error::from(error)))
}

/// The test of chaos alone, with more events and without the test runner's limit of time.
///
/// # Errors
/// When a server cannot be had or the test fails.
pub(crate) fn chaos(events: u64) -> Result<()> {
    let urls = services::up()?;
    services::can_run_own_broker()?;
    let shell = workspace::shell()?;
    let test = workspace::cargo(&shell, &["test", "-p", "amends-relay", "--test", "chaos", "--", "--nocapture"]);
    let test = test.env(services::DATABASE_URL, &urls.database).env(services::AMQP_URL, &urls.amqp);
    Ok(test.env("AMENDS_CHAOS_EVENTS", events.to_string()).run()?)
}

fn checks<'a>(shell: &'a Shell, urls: &Urls, own_broker: bool, runner_args: &[String]) -> Vec<Check<'a>> {
    let cargo = |args: &str| workspace::cargo(shell, &args.split(' ').collect::<Vec<_>>());
    let with_servers =
        |cmd: Cmd<'a>| cmd.env(services::DATABASE_URL, &urls.database).env(services::AMQP_URL, &urls.amqp);
    let is_there = |tool: &str| {
        let version = cargo(tool).arg("--version").quiet().ignore_stdout().ignore_stderr();
        version.run().is_ok()
    };
    let if_installed = |tool: &str, args: &str| is_there(tool).then(|| cargo(args)).ok_or("not installed");

    let runner =
        if is_there("nextest") { cargo("nextest run --workspace") } else { cargo("test --workspace --all-targets") };
    let mut test_args = runner_args.to_vec();
    if !own_broker {
        let separator = (!test_args.iter().any(|arg| arg == "--")).then_some("--");
        test_args.extend(separator.into_iter().chain(["--skip", OWN_BROKER]).map(str::to_owned));
    }
    let check = |name, command| Check { name, command };
    let mut checks = vec![
        check("format", Ok(cargo("fmt --all --check"))),
        check("clippy", Ok(cargo("clippy --workspace --all-targets -- -D warnings"))),
        // Tests start the binaries of other crates, which cargo does not build for them.
        check("binaries", Ok(cargo("build --workspace --bins"))),
        check("tests", Ok(with_servers(runner.args(&test_args)))),
        check("doc tests", Ok(with_servers(cargo("test --workspace --doc")))),
        check("documentation", Ok(cargo("doc --workspace --no-deps").env("RUSTDOCFLAGS", "-D warnings"))),
        check("dependencies", if_installed("deny", "deny --offline check bans licenses sources")),
        check("unused crates", if_installed("machete", "machete")),
    ];
    if !own_broker {
        let why = "rabbitmq-server is not installed, so tests that stop and alarm a broker of their own did not run";
        checks.push(check("own brokers", Err(why)));
    }
    checks
}

fn heading(name: &str) {
    eprintln!("\n=== {name} ===");
}

impl Outcome {
    fn seconds(&self) -> String {
        match self {
            Self::Passed(time) | Self::Failed(time) => format!("{:7.1} s", time.as_secs_f64()),
            Self::Skipped(_) | Self::NotRun => " ".repeat(9),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.seconds();
        match self {
            Self::Passed(_) => write!(f, "{seconds}  passed"),
            Self::Failed(_) => write!(f, "{seconds}  FAILED"),
            Self::Skipped(why) => write!(f, "{seconds}  skipped: {why}"),
            Self::NotRun => write!(f, "{seconds}  not run"),
        }
    }
}
