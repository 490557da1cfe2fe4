//! A private server in a Docker container, for machines that cannot have the real thing.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::place::Place;
use super::server::{self, Server};
use super::{port, process};
use crate::error::{Error, Result};

/// A server in a container that is this workspace's own.
#[derive(Debug)]
pub(crate) struct Container {
    /// The image, with its tag.
    pub(crate) image: &'static str,
    /// The ports of this machine that it may have.
    pub(crate) ports: port::Range,
    /// The port that the server in the container listens on.
    pub(crate) inner_port: u16,
    /// What the image needs to be told, as `NAME=value`.
    pub(crate) settings: &'static [&'static str],
    /// The URL but for the port.
    pub(crate) url: [&'static str; 2],
    /// A command that exits with 0, in the container, once the server takes connections.
    pub(crate) ready: &'static [&'static str],
    /// Where the port is remembered.
    pub(crate) place: Place,
}

/// Whether there is a Docker engine that answers.
pub(crate) fn is_possible() -> bool {
    process::on_path("docker").is_some() && process::succeeds(Command::new("docker").arg("info"))
}

impl Container {
    fn name(&self) -> String {
        let server = self.image.split(':').next().unwrap_or(self.image);
        format!("{}-{server}", self.place.marker)
    }

    fn port_file(&self) -> PathBuf {
        self.place.path("docker-port")
    }

    fn is_running(&self) -> bool {
        let mut inspect = Command::new("docker");
        inspect.args(["inspect", "--format", "{{.State.Running}}", &self.name()]);
        process::read(&mut inspect).as_deref() == Some("true")
    }
}

impl Server for Container {
    fn url(&self) -> Option<String> {
        let port = port::remembered(&self.port_file())?;
        Some(format!("{}{port}{}", self.url[0], self.url[1]))
    }

    fn is_up(&self) -> bool {
        let mut ready = Command::new("docker");
        ready.args(["exec", &self.name()]).args(self.ready);
        self.is_running() && process::succeeds(&mut ready)
    }

    fn start(&self) -> Result<()> {
        let name = self.name();
        if !self.is_running() {
            self.place.create()?;
            let port = port::choose(&self.port_file(), self.ports, 1, self.place.seed)?;
            eprintln!("starting {} in Docker on port {port}", self.image);
            // The port may have changed since, and what the servers hold is for tests only.
            process::succeeds(Command::new("docker").args(["rm", "--force", "--volumes", &name]));
            let publish = format!("127.0.0.1:{port}:{}", self.inner_port);
            let mut run = Command::new("docker");
            run.args(["run", "--detach", "--name", &name, "--publish", &publish]);
            run.args(self.settings.iter().flat_map(|setting| ["--env", setting])).arg(self.image);
            if let Err(error) = server::run(&mut run, "docker run") {
                let _ = fs::remove_file(self.port_file());
                return Err(error);
            }
        }
        if process::wait_until(Duration::from_mins(2), || self.is_up()) {
            Ok(())
        } else {
            Err(Error::failed(format!("{name} does not take connections: see `docker logs {name}`")))
        }
    }

    fn stop(&self) -> Result<()> {
        if self.is_running() {
            server::run(Command::new("docker").args(["stop", &self.name()]), "docker stop")?;
        }
        Ok(())
    }
}
