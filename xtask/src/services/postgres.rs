//! A private `PostgreSQL`, run from the binaries that are installed.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use super::place::Place;
use super::server::{self, Server};
use super::{port, process};
use crate::error::{Error, Result};

/// Not `amends`: its `search_path` would begin with the schema of that name, and take the application's tables there.
const USER: &str = "developer";
const SETTINGS: &str = "amends.conf";
const PATIENCE: Duration = Duration::from_mins(1);

/// A private `PostgreSQL`.
#[derive(Debug)]
pub(crate) struct Postgres {
    place: Place,
    binaries: PathBuf,
}

impl Postgres {
    /// The private server, if the machine has the binaries to run it.
    pub(crate) fn find() -> Option<Self> {
        Some(Self { place: Place::of("postgres", "postgres"), binaries: binaries()? })
    }

    fn data(&self) -> PathBuf {
        self.place.path("data")
    }

    fn is_running(&self) -> bool {
        process::find("postgres", &self.place.marker).is_some()
    }

    /// Makes the data folder under another name first: killed half-way, it does not look whole.
    fn create_data(&self) -> Result<()> {
        let new = self.place.path("data.new");
        let password = self.place.path("password.new");
        let create_database = self.place.path("create.sql");
        if new.exists() {
            fs::remove_dir_all(&new).map_err(Error::io(format!("remove {}", new.display())))?;
        }
        eprintln!("PostgreSQL: making a data folder in {}", self.data().display());
        self.place.write_secret(&password)?;
        self.place.write(&create_database, &format!("create database {USER}\n"))?;

        let mut initdb = self.place.command(self.binaries.join("initdb"));
        initdb.args(["--username", USER, "--encoding", "UTF8", "--locale", "C"]);
        // In clear, but on loopback only: SCRAM in unoptimised tests costs more than the test.
        initdb.args(["--auth", "password", "--pwfile"]).arg(&password).arg("-D").arg(&new);
        server::run(&mut initdb, "initdb")?;

        let mut single = self.place.command(self.binaries.join("postgres"));
        let input = File::open(&create_database).map_err(Error::io("open create.sql"))?;
        single.arg("--single").arg("-D").arg(&new).arg("postgres").stdin(input);
        server::run(&mut single, "postgres --single")?;

        // initdb's file stays, as it has tried out which shared memory works here.
        let include = |mut conf: File| writeln!(conf, "include '{SETTINGS}'");
        File::options()
            .append(true)
            .open(new.join("postgresql.conf"))
            .and_then(include)
            .and_then(|()| fs::rename(&password, new.join("password")))
            .and_then(|()| fs::rename(&new, self.data()))
            .map_err(Error::io(format!("finish {}", new.display())))
    }

    /// Puts aside a data folder that another major version made.
    fn put_aside_other_version(&self) -> Result<()> {
        let Ok(made_by) = fs::read_to_string(self.data().join("PG_VERSION")) else {
            return Ok(());
        };
        let made_by = made_by.trim();
        let version = process::read(Command::new(self.binaries.join("postgres")).arg("--version"));
        let major = version.as_deref().and_then(major_version);
        if major.is_none_or(|major| major == made_by) {
            return Ok(());
        }
        let aside = self.place.path(&format!("data-{made_by}"));
        eprintln!("PostgreSQL: the data is of version {made_by}; moved to {}", aside.display());
        fs::rename(self.data(), &aside).map_err(Error::io(format!("rename to {}", aside.display())))
    }

    /// Clears what a server that was killed has left behind.
    fn bury(&self) -> Result<()> {
        let orphans = format!("postgres: {}", self.place.marker);
        if !process::wait_until(Duration::from_secs(10), || !process::is_any_titled(&orphans)) {
            return Err(Error::failed("processes of a PostgreSQL that was killed are still running"));
        }
        // None of its processes lives, but by now the pid in the file may be someone else's.
        match fs::remove_file(self.data().join("postmaster.pid")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove postmaster.pid")(error)),
            _ => Ok(()),
        }
    }

    fn pg_ctl(&self, verb: &str) -> Command {
        let mut pg_ctl = self.place.command(self.binaries.join("pg_ctl"));
        pg_ctl.args([verb, "--silent", "--wait", "--timeout", "60", "-D"]).arg(self.data());
        pg_ctl
    }
}

impl Server for Postgres {
    fn url(&self) -> Option<String> {
        let password = fs::read_to_string(self.data().join("password")).ok()?;
        let port = port::remembered(&self.place.path("port"))?;
        Some(format!("postgres://{USER}:{password}@127.0.0.1:{port}/{USER}"))
    }

    fn is_up(&self) -> bool {
        let ready = || {
            let status = fs::read_to_string(self.data().join("postmaster.pid")).ok()?;
            let port = port::remembered(&self.place.path("port"))?;
            status.lines().any(|line| line.trim() == "ready").then(|| port::connect(port))?
        };
        self.is_running() && ready().is_some()
    }

    fn start(&self) -> Result<()> {
        if self.is_running() && process::wait_until(PATIENCE, || self.is_up()) {
            return Ok(());
        }
        self.place.create()?;
        self.put_aside_other_version()?;
        if !self.data().exists() {
            self.create_data()?;
        }
        self.bury()?;
        let port = port::choose(&self.place.path("port"), port::POSTGRES, 1, self.place.seed)?;
        self.place.write(&self.data().join(SETTINGS), &settings(port))?;
        let (log, _) = self.place.log("log")?;
        eprintln!("PostgreSQL: starting on port {port}, log in {}", log.display());
        let name = format!("-c cluster_name={}", self.place.marker);
        // pg_ctl gives the server a session of its own.
        let start = || server::run(self.pg_ctl("start").arg("-o").arg(&name).arg("-l").arg(&log), "pg_ctl start");
        start().or_else(|_| {
            // Shared memory of a server that was just killed takes a moment to go.
            sleep(Duration::from_secs(2));
            start().map_err(|error| server::with_log(&error, &log))
        })
    }

    fn stop(&self) -> Result<()> {
        if !self.is_running() {
            return Ok(());
        }
        server::run(self.pg_ctl("stop").args(["--mode", "fast"]), "pg_ctl stop")
    }
}

/// The folder with initdb, `pg_ctl` and postgres, the newest of them.
fn binaries() -> Option<PathBuf> {
    let is_whole = |dir: &PathBuf| ["initdb", "pg_ctl", "postgres"].iter().all(|name| dir.join(name).is_file());
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = debian
        .map(|version| version.path().join("bin"))
        .filter(is_whole)
        .max_by_key(|dir| dir.parent().and_then(Path::file_name).and_then(|name| name.to_str()?.parse::<u32>().ok()));
    // A link on PATH is followed: what is wanted is the folder that the programs share.
    let on_path = || process::on_path("initdb")?.canonicalize().ok()?.parent().map(Path::to_path_buf);
    newest.or_else(|| on_path().filter(is_whole))
}

/// The major version in "postgres (`PostgreSQL`) 15.18 (Debian 15.18-0+deb12u1)".
fn major_version(text: &str) -> Option<&str> {
    text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?.split('.').next()
}

/// Durable as in production, since what tests and benchmarks claim is about durability.
///
/// A test that ends while it opens a connection leaves a server process that waits for a client which says no more, and
/// that all who drop a database wait for: by default for a minute.
fn settings(port: u16) -> String {
    format!(
        "# Written by `cargo xtask services up` at each start.\n\
         listen_addresses = '127.0.0.1'\n\
         port = {port}\n\
         unix_socket_directories = ''\n\
         max_connections = 200\n\
         shared_buffers = 256MB\n\
         max_wal_size = 2GB\n\
         fsync = on\n\
         authentication_timeout = 10s\n\
         synchronous_commit = on\n\
         timezone = 'UTC'\n\
         log_timezone = 'UTC'\n\
         log_line_prefix = '%m [%p] %d '\n"
    )
}

#[cfg(test)]
mod tests {
    use super::major_version;

    #[test]
    fn major_version_is_read_from_what_postgres_says() {
        assert_eq!(major_version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), Some("15"));
        assert_eq!(major_version("postgres (PostgreSQL) 19beta1"), Some("19beta1"));
    }
}
