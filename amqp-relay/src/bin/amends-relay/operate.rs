//! What an operator asks for: what is held, pause, lanes, replay.

use std::fmt::Write;

use amends::MessageId;
use amends_postgres::cursor::Retold;
use amends_postgres::operator::{self, HeldLine, Which};
use amends_relay::{Relay, Replay};
use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use sqlx::PgPool;
use uuid::Uuid;

use crate::settings::Settings;

/// What is done about held messages.
#[derive(Debug, Subcommand)]
pub(crate) enum Held {
    /// Lists them, in the order in which they are published.
    List {
        #[command(flatten)]
        which: Selection,
        /// So many at most.
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
    /// Tries them again at once; those behind them follow in order.
    Release {
        #[command(flatten)]
        which: Selection,
    },
    /// Gives them up: they are never published, and those behind them follow.
    Discard {
        #[command(flatten)]
        which: Selection,
    },
    /// Sends them to another exchange, under another routing key, or both, and tries them again at once.
    Reroute {
        #[command(flatten)]
        which: Selection,
        /// The exchange.
        #[arg(long)]
        to_exchange: Option<String>,
        /// The topic, which is the routing key where no route says otherwise.
        #[arg(long)]
        to_topic: Option<String>,
    },
}

/// Which held messages.
#[derive(Debug, Args)]
pub(crate) struct Selection {
    /// Those of this key.
    #[arg(long)]
    key: Option<String>,
    /// This one.
    #[arg(long)]
    id: Option<Uuid>,
    /// Those of this type.
    #[arg(long = "type")]
    name: Option<String>,
    /// Those that are parked.
    #[arg(long)]
    parked: bool,
    /// All.
    #[arg(long)]
    all: bool,
}

/// Which messages are published once more.
#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// Written at this time or later, such as 2026-11-25T17:00:00Z.
    #[arg(long)]
    since: DateTime<Utc>,
    /// Written before this time.
    #[arg(long)]
    until: Option<DateTime<Utc>>,
    /// Of these types, by a pattern such as `order.*`.
    #[arg(long = "types")]
    types: Option<String>,
    /// Of this key.
    #[arg(long)]
    key: Option<String>,
    /// To this queue alone.
    #[arg(long)]
    to_queue: Option<String>,
    /// So many a second at most.
    #[arg(long)]
    rate: Option<u32>,
}

impl Selection {
    /// What changes messages must say which.
    fn explicit(self) -> Result<Which, String> {
        let all = self.all;
        let which = self.which();
        if which == Which::default() && !all {
            return Err("say which held messages: --key, --id, --type, --parked or --all".to_owned());
        }
        Ok(which)
    }

    fn which(self) -> Which {
        Which { key: self.key, id: self.id.map(MessageId), name: self.name, parked: self.parked }
    }
}

pub(crate) async fn held(pool: &PgPool, held: Held) -> Result<(), String> {
    let (done, count) = match held {
        Held::List { which, limit } => {
            let lines = operator::held(pool, &which.which(), limit).await.map_err(text)?;
            print!("{}", table(&lines));
            return Ok(());
        }
        Held::Release { which } => ("released", operator::release(pool, &which.explicit()?).await),
        Held::Discard { which } => ("discarded", operator::discard(pool, &which.explicit()?).await),
        Held::Reroute { to_exchange: None, to_topic: None, .. } => {
            return Err("say where they go: --to-exchange, --to-topic or both".to_owned());
        }
        Held::Reroute { which, to_exchange, to_topic } => {
            let which = which.explicit()?;
            ("rerouted", operator::reroute(pool, &which, to_exchange.as_deref(), to_topic.as_deref()).await)
        }
    };
    let count = count.map_err(text)?;
    println!("{done} {count} held messages");
    if count == 0 { Err("there is no such held message; see `amends-relay held list`".to_owned()) } else { Ok(()) }
}

pub(crate) async fn replay(settings: &Settings, pool: PgPool, args: ReplayArgs) -> Result<(), String> {
    let teller = Relay::new(pool.clone(), settings.broker()?, settings.relay_options());
    match Retold::oldest(&pool).await.map_err(text)? {
        Some(oldest) if oldest > args.since => {
            eprintln!("the oldest message that is retained is of {}; older ones are gone", oldest.to_rfc3339());
        }
        _ => {}
    }
    let ReplayArgs { since, until, types, key, to_queue: queue, rate } = args;
    let replay = Replay { until, types, key, queue, rate, ..Replay::since(since) };
    let replayed = teller.replay(&replay).await.map_err(|error| error.to_string())?;
    println!("published {} messages once more", replayed.published);
    let Some((id, reason)) = replayed.refused.first() else { return Ok(()) };
    Err(format!("{} messages were refused, the first is {}: {reason}", replayed.refused.len(), id.0))
}

const SECONDS: &str = "%Y-%m-%dT%H:%M:%SZ";

fn table(lines: &[HeldLine]) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    _ = writeln!(
        text,
        "{:<36}  {:<20} {:<24} {:<20} {:>8}  {:<20} REASON",
        "ID", "KEY", "TYPE", "SINCE", "ATTEMPTS", "NEXT"
    );
    for line in lines {
        let since = line.held_at.format(SECONDS).to_string();
        let next = if line.parked { "parked".to_owned() } else { line.retry_at.format(SECONDS).to_string() };
        let (key, reason) = (line.key.as_deref().unwrap_or("-"), line.reason.replace('\n', " "));
        _ = writeln!(
            text,
            "{:<36}  {key:<20} {:<24} {since:<20} {:>8}  {next:<20} {reason}",
            line.id, line.name, line.attempts
        );
    }
    text
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn text(error: sqlx::Error) -> String {
    format!("the database: {error}")
}
