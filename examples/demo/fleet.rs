//! The shop's processes: two order services, two relays, payments, warehouse.

use std::env;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use amends_relay::telemetry::HANDLED;
use futures_util::future::join_all;
use shop::service::Failure;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use crate::child::Child;
use crate::world::World;

/// One process of the shop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Payments,
    Warehouse,
    RelayA,
    RelayB,
    OrdersA,
    OrdersB,
}

/// All processes, and how to start each.
#[derive(Debug)]
pub(crate) struct Fleet {
    posts: Vec<Post>,
    logs: PathBuf,
    /// The databases that need the schema of amends.
    migrated: [String; 2],
}

/// A process that should be there.
#[derive(Debug)]
struct Post {
    role: Role,
    binary: &'static str,
    port: u16,
    args: Vec<String>,
    env: [(&'static str, String); 2],
    child: Option<Child>,
}

/// How long a process may take until it answers.
const PATIENCE: Duration = Duration::from_secs(20);

impl Role {
    const ALL: [Self; 6] = [Self::Payments, Self::Warehouse, Self::RelayA, Self::RelayB, Self::OrdersA, Self::OrdersB];

    /// The name for people and of its log.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Payments => "payments",
            Self::Warehouse => "warehouse",
            Self::RelayA => "relay-a",
            Self::RelayB => "relay-b",
            Self::OrdersA => "orders-a",
            Self::OrdersB => "orders-b",
        }
    }
}

impl Fleet {
    /// Says what is to be started; starts nothing.
    pub(crate) fn new(world: &World, seed: u64) -> Result<Self, Failure> {
        let payments = free_port()?;
        let mut posts = Vec::new();
        for role in Role::ALL {
            let port = if role == Role::Payments { payments } else { free_port()? };
            let listen = format!("127.0.0.1:{port}");
            let (binary, database, args) = match role {
                Role::Payments => ("payments", "payments", vec![format!("--seed={seed}")]),
                Role::Warehouse => {
                    let args = [format!("--exchange={}", world.name), format!("--queue={}", world.queue())];
                    ("warehouse", "warehouse", args.to_vec())
                }
                Role::RelayA | Role::RelayB => {
                    ("amends-relay", "orders", vec!["run".to_owned(), format!("--exchange={}", world.name)])
                }
                Role::OrdersA | Role::OrdersB => {
                    ("orders", "orders", vec![format!("--payments=http://127.0.0.1:{payments}")])
                }
            };
            let args = args.into_iter().chain([format!("--listen={listen}")]).collect();
            // In the environment, since anybody may read the arguments of a process.
            let env = [("DATABASE_URL", world.url(database)), ("AMQP_URL", world.amqp_url.clone())];
            posts.push(Post { role, binary, port, args, env, child: None });
        }
        Ok(Self {
            posts,
            logs: world.logs().to_owned(),
            migrated: ["orders", "warehouse"].map(|service| world.url(service)),
        })
    }

    /// Makes the schema of amends where it is needed, and starts everything.
    pub(crate) async fn start(&mut self) -> Result<(), Failure> {
        self.migrate().await?;
        for role in Role::ALL {
            self.start_one(role).await?;
        }
        Ok(())
    }

    /// `amends-relay migrate`, as an operator would: for sagas and outbox in one database, for the inbox in the other.
    async fn migrate(&self) -> Result<(), Failure> {
        let relay = sibling("amends-relay")?;
        for url in &self.migrated {
            let output = Command::new(&relay)
                .arg("migrate")
                .env("DATABASE_URL", url)
                .output()
                .await
                .map_err(|error| format!("cannot run {}: {error}", relay.display()))?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr);
                return Err(format!("`amends-relay migrate` failed: {}", said.trim()).into());
            }
        }
        Ok(())
    }

    /// Starts a process that is not there, and waits until it answers.
    pub(crate) async fn start_one(&mut self, role: Role) -> Result<(), Failure> {
        let log = self.logs.join(format!("{}.log", role.name()));
        let post = self.post(role);
        let mut child = Child::spawn(role.name(), &sibling(post.binary)?, &post.args, &post.env, &log).await?;
        let path = if post.binary == "amends-relay" { "healthz" } else { "health" };
        let url = format!("http://127.0.0.1:{}/{path}", post.port);
        let begun = Instant::now();
        let answer = loop {
            if reqwest::get(&url).await.is_ok_and(|reply| reply.status().is_success()) {
                break Ok(());
            }
            if let Err(error) = child.check() {
                break Err(error);
            }
            if begun.elapsed() > PATIENCE {
                break Err(format!("{} does not answer at {url}", role.name()).into());
            }
            sleep(Duration::from_millis(25)).await;
        };
        post.child = Some(child);
        answer
    }

    /// `kill -9`; gives the process id that was.
    pub(crate) async fn kill_one(&mut self, role: Role) -> Option<u32> {
        let mut child = self.post(role).child.take()?;
        child.kill().await;
        Some(child.pid())
    }

    /// `kill -9` while it works off what has piled up in a moment's hold.
    pub(crate) async fn kill_in_full_swing(&mut self, role: Role) {
        if let Some(mut child) = self.post(role).child.take() {
            child.hold_and_kill(Duration::from_secs(1), Duration::from_millis(15)).await;
        }
    }

    /// The process id of a process that runs.
    pub(crate) fn pid(&self, role: Role) -> Option<u32> {
        self.posts.iter().find(|post| post.role == role)?.child.as_ref().map(Child::pid)
    }

    /// Fails if a process has ended that nobody killed.
    pub(crate) fn check(&mut self) -> Result<(), Failure> {
        self.posts.iter_mut().filter_map(|post| post.child.as_mut()).try_for_each(Child::check)
    }

    /// Where orders are taken.
    pub(crate) fn order_urls(&self) -> Vec<String> {
        let orders = self.posts.iter().filter(|post| post.binary == "orders");
        orders.map(|post| format!("http://127.0.0.1:{}", post.port)).collect()
    }

    /// What the warehouse counts: copies of events that it had handled before.
    pub(crate) async fn duplicates(&mut self) -> Result<u64, Failure> {
        let url = format!("http://127.0.0.1:{}/metrics", self.post(Role::Warehouse).port);
        let metrics = reqwest::get(url).await?.error_for_status()?.text().await?;
        let counts = metrics.lines().filter(|line| line.starts_with(HANDLED) && line.contains("duplicate"));
        Ok(counts.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum())
    }

    /// Asks all to end and waits until they have.
    pub(crate) async fn stop(&mut self) {
        join_all(self.posts.iter_mut().filter_map(|post| post.child.as_mut()).map(Child::stop)).await;
    }

    /// Ends all at once.
    pub(crate) async fn kill(&mut self) {
        join_all(self.posts.iter_mut().filter_map(|post| post.child.as_mut()).map(Child::kill)).await;
    }

    fn post(&mut self, role: Role) -> &mut Post {
        let place = self.posts.iter().position(|post| post.role == role);
        // `new` makes a post for every role.
        &mut self.posts[place.unwrap_or_default()]
    }
}

/// The program of that name beside this one.
fn sibling(binary: &str) -> Result<PathBuf, Failure> {
    Ok(env::current_exe()?.with_file_name(binary))
}

/// A port that nobody listens on just now.
fn free_port() -> Result<u16, Failure> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
