//! The binary `amends-relay`, run as its users do.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use tokio::task::block_in_place;

use crate::support::{World, eventually};

/// The binary, which runs a relay; gone when dropped.
pub(crate) struct Binary {
    child: Child,
    address: String,
}

impl Binary {
    pub(crate) fn start(world: &World, broker: &str, args: &[&str]) -> Self {
        let name = &world.name;
        let mut child = Command::new(env!("CARGO_BIN_EXE_amends-relay"))
            .args(["run", "--listen", "127.0.0.1:0", "--exchange", name, "--reply-queue", &format!("{name}-replies")])
            .args(args)
            .env_remove("DATABASE_URL")
            .env("AMQP_URL", broker)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let started = lines.find(|line| line.contains("the relay starts")).expect("it starts");
        let address = started.split("http=").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
        // What it says later must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address }
    }

    /// The status and the body.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    pub(crate) async fn until_ready_says(&self, status: u16, needle: &str) {
        eventually(needle, || {
            let (got, body) = block_in_place(|| self.get("/readyz"));
            got == status && body.contains(needle)
        })
        .await;
    }
}

impl Drop for Binary {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
