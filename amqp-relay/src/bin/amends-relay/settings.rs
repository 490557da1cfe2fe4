//! Settings, from the strongest to the weakest: flags, environment, TOML file, defaults.

use std::path::PathBuf;
use std::time::Duration;

use amends_postgres::Retention;
use amends_relay::{AmqpUrl, Ordering, QueueKind, QueueTopology, RelayOptions, ReplyQueue, Topology};
use clap::Args;
use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgConnectOptions;

/// Flags of all commands. What is not given comes from the environment, the file or the defaults.
#[derive(Debug, Args, Serialize)]
pub(crate) struct Flags {
    /// A TOML file with settings.
    #[arg(long, global = true, env = "AMENDS_CONFIG")]
    #[serde(skip)]
    config: Option<PathBuf>,
    /// The PostgreSQL database with the outbox. [env: `DATABASE_URL`]
    #[arg(long, global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    database_url: Option<String>,
    /// The RabbitMQ broker. [env: `AMQP_URL`]
    #[arg(long, global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    amqp_url: Option<String>,
    /// The topic exchange that is published to.
    #[arg(long, global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    exchange: Option<String>,
    /// The queue for replies to the requests of sagas, one for each database; empty if there are none.
    #[arg(long, global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_queue: Option<String>,
    /// The address of /healthz, /readyz and /metrics; port 0 takes a free one.
    #[arg(long, global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    listen: Option<String>,
    /// A name for people.
    #[arg(long, global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// `strict`: one unconfirmed message a key. `pipelined`: faster for few keys, order may break on a refusal.
    #[arg(long, global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    ordering: Option<String>,
    /// Seconds without a renewal after which a standby takes over.
    #[arg(long, global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_seconds: Option<u64>,
}

/// In seconds.
const DAY: u64 = 86_400;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    database_url: Option<String>,
    amqp_url: Option<String>,
    exchange: String,
    pub(crate) listen: String,
    name: String,
    ordering: Ordering,
    lease_seconds: u64,
    /// Declare the exchange and all queues at every connection.
    declare: bool,
    /// What `declare` declares beside the exchange.
    queues: Vec<QueueTopology>,
    /// Empty if no replies are awaited.
    reply_queue: String,
    reply_queue_kind: QueueKind,
    source: String,
    lane: i16,
    page: usize,
    wave: usize,
    confirm_seconds: u64,
    most_attempts: i32,
    poll_millis: u64,
    /// Nothing is dropped or deleted.
    keep_all: bool,
    keep_outbox_days: u64,
    keep_sagas_days: u64,
    keep_keys_days: u64,
    keep_inbox_days: u64,
    keep_barrier_days: u64,
    keep_payloads_days: u64,
}

impl Default for Settings {
    fn default() -> Self {
        let options = RelayOptions::default();
        let replies = ReplyQueue::default();
        let retention = Retention::default();
        let days = |age: Duration| age.as_secs() / DAY;
        Self {
            database_url: None,
            amqp_url: None,
            exchange: options.exchange,
            listen: "127.0.0.1:9464".into(),
            name: options.name,
            ordering: options.ordering,
            lease_seconds: options.lease.as_secs(),
            declare: true,
            queues: Vec::new(),
            reply_queue: replies.name,
            reply_queue_kind: replies.kind,
            source: options.source,
            lane: options.lane,
            page: options.page,
            wave: options.wave,
            confirm_seconds: options.confirm_deadline.as_secs(),
            most_attempts: options.most_attempts,
            poll_millis: options.poll.as_millis() as u64,
            keep_all: false,
            keep_outbox_days: days(retention.outbox),
            keep_sagas_days: days(retention.sagas),
            keep_keys_days: days(retention.keys),
            keep_inbox_days: days(retention.inbox),
            keep_barrier_days: days(retention.barrier),
            keep_payloads_days: days(retention.payloads),
        }
    }
}

impl Settings {
    pub(crate) fn load(flags: &Flags) -> Result<Self, String> {
        let mut figment = Figment::from(Serialized::defaults(Self::default()));
        if let Some(file) = &flags.config {
            if !file.is_file() {
                return Err(format!("there is no configuration file {}; check --config", file.display()));
            }
            figment = figment.merge(Toml::file_exact(file));
        }
        let settings: Self = figment
            .merge(Env::raw().only(&["DATABASE_URL", "AMQP_URL"]))
            .merge(Env::prefixed("AMENDS_").ignore(&["CONFIG"]))
            .merge(Serialized::defaults(flags))
            .extract()
            .map_err(|error| describe(&error))?;
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> Result<(), String> {
        let positive = [
            ("lease_seconds", self.lease_seconds),
            ("page", self.page as u64),
            ("wave", self.wave as u64),
            ("confirm_seconds", self.confirm_seconds),
            ("poll_millis", self.poll_millis),
        ];
        // Its name is also a routing key, and that of its dead letters is longer.
        if self.reply_queue.len() > 250 || self.reply_queue.contains(['*', '#', '\0']) {
            return Err("`reply_queue` must be shorter than 250 bytes, without `*` and `#`".to_owned());
        }
        match positive.into_iter().find(|(_, value)| *value == 0) {
            Some((key, _)) => Err(format!("`{key}` must be greater than 0")),
            None => Ok(()),
        }
    }

    pub(crate) fn database(&self) -> Result<PgConnectOptions, String> {
        let url = self.database_url.as_deref().ok_or("no database: set DATABASE_URL or --database-url")?;
        let invalid = "the database URL is not valid; it looks like postgres://user:password@host:5432/database";
        if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(invalid.to_owned());
        }
        // The parser's own error may quote the URL with its password.
        url.parse().map_err(|_| invalid.to_owned())
    }

    pub(crate) fn amqp_url(&self) -> Result<AmqpUrl, String> {
        let url = self.amqp_url.as_deref().ok_or("no broker: set AMQP_URL or --amqp-url")?;
        url.parse().map_err(|error: amends_relay::RelayError| error.to_string())
    }

    pub(crate) fn relay_options(&self) -> RelayOptions {
        let topology = if self.declare {
            Topology { exchanges: vec![self.exchange.clone()], queues: self.queues.clone() }
        } else {
            Topology::default()
        };
        let replies = ReplyQueue {
            name: self.reply_queue.clone(),
            kind: self.reply_queue_kind,
            declare: self.declare,
            ..ReplyQueue::default()
        };
        RelayOptions {
            name: self.name.clone(),
            lane: self.lane,
            exchange: self.exchange.clone(),
            source: self.source.clone(),
            topology,
            replies: (!replies.name.is_empty()).then_some(replies),
            ordering: self.ordering,
            lease: Duration::from_secs(self.lease_seconds),
            page: self.page,
            wave: self.wave,
            confirm_deadline: Duration::from_secs(self.confirm_seconds),
            most_attempts: self.most_attempts,
            poll: Duration::from_millis(self.poll_millis),
            retention: (!self.keep_all).then(|| self.retention()),
        }
    }

    fn retention(&self) -> Retention {
        let days = |days: u64| Duration::from_secs(days.saturating_mul(DAY));
        Retention {
            outbox: days(self.keep_outbox_days),
            sagas: days(self.keep_sagas_days),
            keys: days(self.keep_keys_days),
            inbox: days(self.keep_inbox_days),
            barrier: days(self.keep_barrier_days),
            payloads: days(self.keep_payloads_days),
        }
    }
}

/// One line a mistake; values are left out, since one of them may be a password.
fn describe(error: &figment::Error) -> String {
    use figment::error::Kind;
    let problems = error.clone().into_iter().map(|error| {
        let place = match error.metadata.as_ref().map(|metadata| metadata.name.as_ref()) {
            Some(name) if name.contains("environment") => " (in the environment)",
            Some(name) if name.contains("TOML") => " (in the configuration file)",
            Some(_) => " (in the flags)",
            None => "",
        };
        let key = error.path.join(".");
        match error.kind {
            Kind::UnknownField(field, known) => {
                format!("there is no setting `{field}`{place}; the settings are: {}", known.join(", "))
            }
            Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected) => {
                format!("`{key}` must be {expected}{place}")
            }
            Kind::UnknownVariant(_, known) => format!("`{key}` must be one of {}{place}", known.join(", ")),
            Kind::Message(text) if key.is_empty() => format!("{}{place}", text.lines().next().unwrap_or_default()),
            _ => format!("`{key}` cannot be read{place}"),
        }
    });
    problems.collect::<Vec<_>>().join("; ")
}
