//! A `RabbitMQ` of its own for one test, which may stop, kill, alarm and misconfigure it.
//!
//! Such tests are in a module `own_broker`: by that name `cargo xtask test` leaves them out, and says so, on a machine that
//! has no `RabbitMQ` to run.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::task::block_in_place;

/// Starts in 3 s on an idle machine.
const PATIENCE: Duration = Duration::from_mins(1);
/// Below the ports that the kernel hands out, and not those of `cargo xtask services`.
const PORTS: std::ops::Range<u16> = 11_000..21_000;
const PORTS_OF_ONE: u16 = 5;

/// A node with its own ports, users, configuration and data. It is gone, with its folder, when this is dropped or the
/// process ends, even by `kill -9`.
///
/// Its methods block: use it in tests on `multi_thread`.
pub struct PrivateBroker {
    dir: PathBuf,
    port: u16,
    keeper: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    /// Keeps others from choosing the same ports, also while the node is down.
    _reserved: TcpListener,
}

impl PrivateBroker {
    /// A node that runs, with the user `guest` and no plugins.
    pub fn start_new() -> Self {
        let mut broker = Self::prepare();
        broker.start();
        broker
    }

    /// A node that is still to be configured and started.
    pub fn prepare() -> Self {
        let (port, reserved) = choose_ports();
        let dir = std::env::temp_dir().join(format!("amends-broker-{}-{port}", std::process::id()));
        fs::create_dir_all(dir.join("conf.d")).unwrap();
        fs::write(dir.join("enabled_plugins"), "[].\n").unwrap();
        fs::write(dir.join("rabbitmq-env.conf"), "").unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", include_str!("private_broker.sh"), "sh"]).arg(&dir).arg((port + 3).to_string());
        command.arg(script("rabbitmq-server"));
        set_environment(&mut command, &dir, port);
        // In a group of its own: what ends the test must not end the one who cleans up after it.
        let spawned =
            command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut keeper = spawned.unwrap();
        let (orders, answers) = (keeper.stdin.take(), BufReader::new(keeper.stdout.take().unwrap()));
        let broker = Self { dir, port, keeper, orders, answers, _reserved: reserved };
        broker.configure(&format!(
            "listeners.tcp.1 = 127.0.0.1:{port}\n\
             disk_free_limit.absolute = 1MB\n\
             vm_memory_high_watermark.absolute = 1GB\n\
             log.file.level = info\n"
        ));
        broker
    }

    /// Adds lines to `rabbitmq.conf`, for the next start.
    pub fn configure(&self, lines: &str) {
        let mut text = fs::read_to_string(self.path("rabbitmq.conf")).unwrap_or_default();
        text.write_str(lines).unwrap();
        fs::write(self.path("rabbitmq.conf"), text).unwrap();
    }

    /// A file in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub fn url(&self) -> String {
        self.url_of("guest", "guest")
    }

    pub fn url_of(&self, user: &str, password: &str) -> String {
        format!("amqp://{user}:{password}@127.0.0.1:{}/%2f", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it listens for TLS, once it is configured to.
    pub fn tls_port(&self) -> u16 {
        self.port + 1
    }

    /// Starts it, with the data that it had, and waits until it takes connections.
    pub fn start(&mut self) {
        block_in_place(|| {
            self.order("start");
            let deadline = Instant::now() + PATIENCE;
            // To listen is the last step of its start.
            let is_encrypted = fs::read_to_string(self.path("rabbitmq.conf")).unwrap().contains("listeners.ssl");
            let ports = [Some(self.port), is_encrypted.then(|| self.tls_port())];
            let listens = |port: u16| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
            while !ports.into_iter().flatten().all(listens) {
                let is_dead = self.order("ask") == "none";
                assert!(!is_dead && Instant::now() < deadline, "RabbitMQ does not start:\n{}", self.logs());
                std::thread::sleep(Duration::from_millis(50));
            }
        });
    }

    /// Stops it in order.
    pub fn stop(&mut self) {
        block_in_place(|| self.order("TERM"));
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        block_in_place(|| self.order("KILL"));
    }

    /// Runs `rabbitmqctl`; the answer is what it prints.
    pub fn ctl(&self, args: &[&str]) -> String {
        let mut command = Command::new(script("rabbitmqctl"));
        command.arg("--quiet").args(args).stdin(Stdio::null());
        set_environment(&mut command, &self.dir, self.port);
        let output = block_in_place(|| command.output()).unwrap();
        let printed = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "rabbitmqctl {args:?}: {printed}");
        printed
    }

    /// The keeper does it and then answers.
    fn order(&mut self, order: &str) -> String {
        writeln!(self.orders.as_mut().unwrap(), "{order}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        answer.trim_end().to_owned()
    }

    pub fn logs(&self) -> String {
        ["startup.log", "log"].map(|name| fs::read_to_string(self.path(name)).unwrap_or_default()).concat()
    }
}

impl Drop for PrivateBroker {
    fn drop(&mut self) {
        self.orders = None;
        let _ = self.keeper.wait();
    }
}

/// Nothing of it is shared with another `RabbitMQ`.
fn set_environment(command: &mut Command, dir: &Path, port: u16) {
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", dir).env("LANG", "C.UTF-8");
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
        command.env(variable, dir.join(file));
    }
    let distribution = (port + 2).to_string();
    command
        .current_dir(dir)
        .env("RABBITMQ_NODENAME", format!("amends{port}@localhost"))
        .env("RABBITMQ_DIST_PORT", &distribution)
        .env("ERL_EPMD_PORT", (port + 3).to_string())
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        // Replaces the script by the server, which then is the keeper's own child.
        .env("RABBITMQ_ALLOW_INPUT", "true")
        .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-noinput +S 1:1 -kernel inet_dist_use_interface {127,0,0,1}");
}

/// The first of some free ports in a row, and a listener on the last one that says that they are taken.
fn choose_ports() -> (u16, TcpListener) {
    let listen = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    for _ in 0..100 {
        let first = fastrand::u16(PORTS.start / PORTS_OF_ONE..PORTS.end / PORTS_OF_ONE) * PORTS_OF_ONE;
        let last = first + PORTS_OF_ONE - 1;
        if let Ok(reserved) = listen(last)
            && (first..last).all(|port| listen(port).is_ok())
        {
            return (first, reserved);
        }
    }
    panic!("there are no free ports on 127.0.0.1")
}

fn script(name: &str) -> PathBuf {
    // Debian's command on PATH is a wrapper that insists on the system's account and folders.
    let debian = Path::new("/usr/lib/rabbitmq/bin").join(name);
    let on_path = || {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())?.canonicalize().ok()
    };
    let found = if debian.is_file() { Some(debian) } else { on_path() };
    found.unwrap_or_else(|| {
        panic!(
            "this test runs a RabbitMQ of its own, and there is no {name}: install rabbitmq-server, or let `cargo xtask \
             test` do it, or leave out such tests with `--skip own_broker`"
        )
    })
}
