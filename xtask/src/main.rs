//! Developer commands of the amends workspace: `cargo xtask --help`.

mod binary;
mod checks;
mod error;
mod mutants;
mod services;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::Result;

/// Developer commands of the amends workspace.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start, stop or show the `PostgreSQL` and the `RabbitMQ` that tests and demo use.
    Services {
        #[command(subcommand)]
        command: services::Command,
    },
    /// Run every check that CI runs, stopping at the first that fails.
    Test {
        /// Passed on to the test runner, after `--`.
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// Run the demo against real servers.
    Demo {
        /// Passed on to the demo.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Run the benchmark against real servers.
    Bench {
        /// Passed on to the benchmark.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Kill relays and a broker again and again while events flow: the long run of the test of that name.
    Chaos {
        /// How many events.
        #[arg(long, default_value_t = 100_000)]
        events: u64,
    },
    /// Seed bugs in a copy of what is committed, and see that the tests catch each of them.
    ///
    /// A mutant is a patch in `xtask/mutants`, whose header says which tests must catch it. They run on real servers, in a
    /// worktree under `target/mutants` that goes away at the end, also at Ctrl-C. Exits with 1 if a mutant survives.
    Mutants {
        /// Only those whose names contain one of these.
        names: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run(&Args::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command) -> Result<()> {
    match command {
        Command::Services { command } => services::run(command),
        Command::Test { args } => checks::run(args),
        Command::Demo { args } => binary::run("demo", args),
        Command::Bench { args } => binary::run("bench", args),
        Command::Chaos { events } => checks::chaos(*events),
        Command::Mutants { names } => mutants::run(names),
    }
}
