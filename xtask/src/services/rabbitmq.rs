//! A private `RabbitMQ`, run from the scripts that are installed.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::place::Place;
use super::server::{self, Server};
use super::{port, process};
use crate::error::{Error, Result};

const PATIENCE: Duration = Duration::from_mins(2);

/// A private `RabbitMQ`.
#[derive(Debug)]
pub(crate) struct RabbitMq {
    place: Place,
    script: PathBuf,
}

impl RabbitMq {
    /// The private server, if the machine has what it needs to run.
    pub(crate) fn find() -> Option<Self> {
        Some(Self { place: Place::of("rabbitmq", "rabbitmq"), script: script()? })
    }

    fn port(&self) -> Option<u16> {
        port::remembered(&self.place.path("port"))
    }

    fn pid(&self) -> Option<u32> {
        process::find("beam.smp", &self.place.marker)
    }

    /// Ends the name server of Erlang that the last start has left; one with nodes in it refuses.
    fn stop_epmd(&self) {
        if let Some(port) = self.port() {
            let mut kill = self.place.command("epmd");
            process::succeeds(kill.args(["-port", &epmd_port(port).to_string(), "-kill"]));
        }
    }

    /// The server's command: everything that it would share with another `RabbitMQ` is its own.
    fn command(&self, port: u16) -> Result<Command> {
        for (name, text) in [
            ("rabbitmq.conf", configuration(port)),
            ("rabbitmq-env.conf", String::new()),
            ("enabled_plugins", "[].\n".to_owned()),
        ] {
            self.place.write(&self.place.path(name), &text)?;
        }
        // Erlang would make one up from the clock.
        self.place.write_secret(&self.place.path(".erlang.cookie"))?;
        let mut command = detached(&self.place, &self.script);
        for (variable, file) in [
            ("RABBITMQ_ADVANCED_CONFIG_FILE", "advanced.config"),
            ("RABBITMQ_CONFIG_FILE", "rabbitmq.conf"),
            ("RABBITMQ_CONFIG_FILES", "conf.d"),
            ("RABBITMQ_CONF_ENV_FILE", "rabbitmq-env.conf"),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", "enabled_plugins"),
            ("RABBITMQ_GENERATED_CONFIG_DIR", "generated"),
            ("RABBITMQ_LOGS", "log"),
            ("RABBITMQ_LOG_BASE", "."),
            ("RABBITMQ_MNESIA_BASE", "mnesia"),
            ("RABBITMQ_PID_FILE", "pid"),
        ] {
            command.env(variable, self.place.path(file));
        }
        // The marker tells our Erlang from others; RabbitMQ ignores the flag.
        let flags = format!("-kernel inet_dist_use_interface {{127,0,0,1}} -amends {}", self.place.marker);
        command
            .env("RABBITMQ_NODENAME", "amends@localhost")
            .env("RABBITMQ_DIST_PORT", (port + 1).to_string())
            .env("ERL_EPMD_PORT", epmd_port(port).to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", flags);
        Ok(command)
    }
}

impl Server for RabbitMq {
    fn url(&self) -> Option<String> {
        Some(format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.port()?))
    }

    /// `RabbitMQ` listens as the last step of its start, and takes a bare connection for a health check.
    fn is_up(&self) -> bool {
        self.pid().is_some() && self.port().and_then(port::connect).is_some()
    }

    fn start(&self) -> Result<()> {
        if self.pid().is_some()
            && process::wait_until(PATIENCE, || self.is_up() || self.pid().is_none())
            && self.is_up()
        {
            return Ok(());
        }
        self.place.create()?;
        self.stop_epmd();
        let port = port::choose(&self.place.path("port"), port::RABBITMQ, 3, self.place.seed)?;
        let mut command = self.command(port)?;
        let (log, _) = self.place.log("log")?;
        let (startup, output) = self.place.log("startup.log")?;
        let errors = output.try_clone().map_err(Error::io("share startup.log"))?;
        eprintln!("RabbitMQ: starting on port {port}, log in {}", log.display());
        let child = command.stdout(output).stderr(errors).spawn();
        let mut child = child.map_err(Error::io(format!("run {}", self.script.display())))?;
        process::wait_until(PATIENCE, || self.is_up() || matches!(child.try_wait(), Ok(Some(_))));
        if self.is_up() {
            return Ok(());
        }
        Err(server::with_log(&server::with_log(&Error::failed("RabbitMQ did not start"), &startup), &log))
    }

    fn stop(&self) -> Result<()> {
        if let Some(pid) = self.pid() {
            process::end(pid, Duration::from_secs(30), || self.pid().is_none());
        }
        self.stop_epmd();
        match self.pid() {
            Some(pid) => Err(Error::failed(format!("RabbitMQ, process {pid}, does not end"))),
            None => Ok(()),
        }
    }
}

/// A command in a session of its own, so that neither Ctrl-C nor a closed terminal ends it.
fn detached(place: &Place, program: &Path) -> Command {
    if let Some(setsid) = process::on_path("setsid") {
        let mut command = place.command(setsid);
        command.arg(program);
        command
    } else {
        let mut command = place.command(program);
        command.process_group(0);
        command
    }
}

fn epmd_port(port: u16) -> u16 {
    port + 2
}

/// The script rabbitmq-server itself.
fn script() -> Option<PathBuf> {
    // Debian's command on PATH is a wrapper that insists on the system's account and folders.
    let debian = PathBuf::from("/usr/lib/rabbitmq/bin/rabbitmq-server");
    if debian.is_file() {
        return Some(debian);
    }
    let script = process::on_path("rabbitmq-server")?.canonicalize().ok()?;
    let is_wrapper = script.file_name().is_some_and(|name| name == "rabbitmq-script-wrapper");
    (!is_wrapper && fs::metadata(&script).is_ok()).then_some(script)
}

fn configuration(port: u16) -> String {
    format!(
        "# Written by `cargo xtask services up` at each start.\n\
         listeners.tcp.1 = 127.0.0.1:{port}\n\
         disk_free_limit.absolute = 50MB\n\
         vm_memory_high_watermark.absolute = 1GB\n\
         log.file.level = info\n"
    )
}
