//! Gives `PostgreSQL` and `RabbitMQ`: the ones that the environment names, else private ones.

mod docker;
mod given;
mod install;
mod kind;
mod place;
mod port;
mod postgres;
mod process;
mod rabbitmq;
mod server;

use std::fs::{self, File, TryLockError};
use std::thread;

use clap::Subcommand;

use self::kind::Kind;
use self::server::Server;
use crate::error::{Error, Result};
use crate::workspace;

/// The variable that names the `PostgreSQL` to use.
pub(crate) const DATABASE_URL: &str = "DATABASE_URL";
/// The variable that names the `RabbitMQ` to use.
pub(crate) const AMQP_URL: &str = "AMQP_URL";

/// What to do with the servers.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start what is not up, and print the URLs for `eval "$(cargo xtask services up)"`.
    Up,
    /// Stop the private servers; their data stays.
    Down,
    /// Show what is up; exits with 1 if something is not.
    Status,
}

/// Where the servers are.
#[derive(Debug)]
pub(crate) struct Urls {
    /// The value for [`DATABASE_URL`].
    pub(crate) database: String,
    /// The value for [`AMQP_URL`].
    pub(crate) amqp: String,
}

/// Does what `cargo xtask services` was asked for.
///
/// # Errors
/// When a server cannot be started, reached or stopped, or `status` finds one down.
pub(crate) fn run(command: &Command) -> Result<()> {
    match command {
        Command::Up => {
            let urls = up()?;
            println!("export {DATABASE_URL}='{}'", urls.database);
            println!("export {AMQP_URL}='{}'", urls.amqp);
            Ok(())
        }
        Command::Down => down(),
        Command::Status => status(),
    }
}

/// Brings up every server that is not, and says where they are.
///
/// # Errors
/// When a given server does not answer, or a private one cannot be installed or started.
///
/// # Idempotency
/// May be repeated, also by two processes at once and after one that was killed.
pub(crate) fn up() -> Result<Urls> {
    let _lock = lock()?;
    let private = Kind::ALL.map(|kind| given_url(kind).is_none());
    let missing = |kind: &Kind| private[*kind as usize] && kind.installed().is_none();
    provide(&Kind::ALL.into_iter().filter(missing).collect::<Vec<_>>())?;
    let [database, amqp] = thread::scope(|scope| {
        // Each takes seconds to start, and they do not need each other.
        let starts = Kind::ALL.map(|kind| scope.spawn(move || url_of_running(kind)));
        starts.map(|start| start.join().unwrap_or_else(|_| Err(Error::failed("starting a server panicked"))))
    });
    Ok(Urls { database: database?, amqp: amqp? })
}

/// Whether tests can run a `RabbitMQ` of their own, which takes its programs, not just a server somewhere. They are installed
/// where that is possible.
///
/// # Errors
/// When installing them fails.
pub(crate) fn can_run_own_broker() -> Result<bool> {
    if Kind::RabbitMq.installed().is_none() && install::is_possible() {
        install::install(&[Kind::RabbitMq.package()])?;
    }
    Ok(Kind::RabbitMq.installed().is_some())
}

fn url_of_running(kind: Kind) -> Result<String> {
    if let Some(url) = given_url(kind) {
        let place = given::check(kind, &url)?;
        eprintln!("{}: {} names {place}, which answers", kind.name(), kind.variable());
        return Ok(url);
    }
    let unavailable = || Error::failed(format!("{} is not installed", kind.name()));
    let server = private_server(kind).ok_or_else(unavailable)?;
    if !server.is_up() {
        server.start()?;
    }
    server.url().ok_or_else(|| Error::failed(format!("{} is up but its URL is lost", kind.name())))
}

fn down() -> Result<()> {
    let _lock = lock()?;
    for kind in Kind::ALL {
        if let Some(server) = private_server(kind) {
            server.stop()?;
            eprintln!("{}: down", kind.name());
        }
    }
    Ok(())
}

fn status() -> Result<()> {
    let mut all_up = true;
    for kind in Kind::ALL {
        let name = kind.name();
        if let Some(url) = given_url(kind) {
            let checked = given::check(kind, &url);
            all_up &= checked.is_ok();
            match checked {
                Ok(place) => println!("{name}: up, given by {} at {place}", kind.variable()),
                Err(error) => println!("{name}: down, {error}"),
            }
            continue;
        }
        if let Some(server) = private_server(kind).filter(|server| server.is_up()) {
            println!("{name}: up, {}", server.url().unwrap_or_default());
        } else {
            all_up = false;
            println!("{name}: down");
        }
    }
    if all_up { Ok(()) } else { Err(Error::failed("not every server is up: cargo xtask services up")) }
}

/// The URL that the developer gave, unless it is what `up` has printed for the private server.
fn given_url(kind: Kind) -> Option<String> {
    let given = given::url(kind)?;
    let private = kind.installed().and_then(|server| server.url());
    (private.as_ref() != Some(&given)).then_some(given)
}

fn private_server(kind: Kind) -> Option<Box<dyn Server>> {
    kind.installed().or_else(|| kind.in_docker())
}

/// Sees to it that the machine can run every server in `missing`.
fn provide(missing: &[Kind]) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<_> = missing.iter().map(|kind| kind.package()).collect();
    let names: Vec<_> = missing.iter().map(|kind| kind.name()).collect();
    if install::is_possible() {
        return install::install(&packages);
    }
    if docker::is_possible() {
        return Ok(());
    }
    let variables: Vec<_> = missing.iter().map(|kind| kind.variable()).collect();
    Err(Error::failed(format!(
        "{} not installed, and there is neither root, sudo without a password nor Docker to get it with.\n\
         Do one of these and try again:\n  \
         - install it; on Debian or Ubuntu: sudo apt-get install --no-install-recommends {}\n  \
         - start Docker\n  \
         - set {} to a server of yours",
        names.join(" and "),
        packages.join(" "),
        variables.join(" and ")
    )))
}

/// Keeps two runs from starting the same server; ends with the process, however that ends.
fn lock() -> Result<File> {
    let dir = workspace::target().join("services");
    let failed = || Error::io(format!("lock {}", dir.display()));
    fs::create_dir_all(&dir).map_err(failed())?;
    let file = File::create(dir.join("lock")).map_err(failed())?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::Error(error)) => Err(failed()(error)),
        Err(TryLockError::WouldBlock) => {
            eprintln!("waiting for another `cargo xtask services`");
            file.lock().map_err(failed())?;
            Ok(file)
        }
    }
}
