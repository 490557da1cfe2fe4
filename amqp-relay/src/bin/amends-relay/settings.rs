//! Settings, from the strongest to the weakest: flags, environment, TOML file, defaults.

use std::path::PathBuf;
use std::time::Duration;

use amends_postgres::Retention;
use amends_relay::{
    Broker, ExchangeTopology, Ordering, QueueKind, QueueTopology, RelayOptions, ReplyQueue, Route, Topology,
    TopologyMode,
};
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
    /// A file with the URL of the database, read again every few seconds, so that it may change.
    #[arg(long, global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    database_url_file: Option<PathBuf>,
    /// The RabbitMQ broker. [env: `AMQP_URL`]
    #[arg(long, global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    amqp_url: Option<String>,
    /// A file with the URL of the broker. This file and those below are read at every connect.
    #[arg(long, global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    amqp_url_file: Option<PathBuf>,
    /// A file with the broker's user, in place of the one in the URL.
    #[arg(long, global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    amqp_username_file: Option<PathBuf>,
    /// A file with the broker's password, in place of the one in the URL.
    #[arg(long, global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    amqp_password_file: Option<PathBuf>,
    /// The certificates of authorities that are trusted beside those of the system (PEM).
    #[arg(long, global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    amqp_ca_file: Option<PathBuf>,
    /// The certificate by which the broker knows the relay (PEM).
    #[arg(long, global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    amqp_cert_file: Option<PathBuf>,
    /// The key of that certificate (PEM).
    #[arg(long, global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    amqp_key_file: Option<PathBuf>,
    /// What is done with exchanges and queues at every connection: `declare`, `verify` that they exist, or `off`.
    #[arg(long, global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    topology: Option<String>,
    /// The exchange that is published to.
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

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    database_url: Option<String>,
    database_url_file: Option<PathBuf>,
    amqp_url: Option<String>,
    amqp_url_file: Option<PathBuf>,
    amqp_username_file: Option<PathBuf>,
    amqp_password_file: Option<PathBuf>,
    amqp_ca_file: Option<PathBuf>,
    amqp_cert_file: Option<PathBuf>,
    amqp_key_file: Option<PathBuf>,
    exchange: String,
    pub(crate) listen: String,
    name: String,
    ordering: Ordering,
    lease_seconds: u64,
    topology: TopologyMode,
    /// Beside the one that is published to, or how that one is.
    exchanges: Vec<ExchangeTopology>,
    queues: Vec<QueueTopology>,
    /// Empty if no replies are awaited.
    reply_queue: String,
    reply_queue_kind: QueueKind,
    source: String,
    /// Where messages of certain types go.
    routes: Vec<Route>,
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
            database_url_file: None,
            amqp_url: None,
            amqp_url_file: None,
            amqp_username_file: None,
            amqp_password_file: None,
            amqp_ca_file: None,
            amqp_cert_file: None,
            amqp_key_file: None,
            exchange: options.exchange,
            listen: "127.0.0.1:9464".into(),
            name: options.name,
            ordering: options.ordering,
            lease_seconds: options.lease.as_secs(),
            topology: TopologyMode::default(),
            exchanges: Vec::new(),
            queues: Vec::new(),
            reply_queue: replies.name,
            reply_queue_kind: replies.kind,
            source: options.source,
            routes: options.routes,
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

    /// Read anew at each call, if it is in a file.
    pub(crate) fn database(&self) -> Result<PgConnectOptions, String> {
        let url = match (&self.database_url, &self.database_url_file) {
            (Some(_), Some(_)) => return Err(both("database_url")),
            (Some(url), None) => url.clone(),
            (None, Some(file)) => std::fs::read_to_string(file)
                .map_err(|error| format!("cannot read `database_url_file`, {}: {error}", file.display()))?,
            (None, None) => return Err("no database: set DATABASE_URL or --database-url".to_owned()),
        };
        let url = url.trim();
        let invalid = "the database URL is not valid; it looks like postgres://user:password@host:5432/database";
        if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(invalid.to_owned());
        }
        // The parser's own error may quote the URL with its password.
        url.parse().map_err(|_| invalid.to_owned())
    }

    pub(crate) fn has_database_file(&self) -> bool {
        self.database_url_file.is_some()
    }

    /// Every file is read once, so that a wrong one is known at the start.
    pub(crate) fn broker(&self) -> Result<Broker, String> {
        let mut broker = match (&self.amqp_url, &self.amqp_url_file) {
            (Some(_), Some(_)) => return Err(both("amqp_url")),
            (Some(url), None) => url.parse().map_err(|error: amends_relay::RelayError| error.to_string())?,
            (None, Some(file)) => Broker::at_url_in(file),
            (None, None) => return Err("no broker: set AMQP_URL or --amqp-url".to_owned()),
        };
        if let Some(file) = &self.amqp_username_file {
            broker = broker.username_file(file);
        }
        if let Some(file) = &self.amqp_password_file {
            broker = broker.password_file(file);
        }
        if let Some(file) = &self.amqp_ca_file {
            broker = broker.ca_file(file);
        }
        match (&self.amqp_cert_file, &self.amqp_key_file) {
            (Some(certificate), Some(key)) => broker = broker.client_certificate(certificate, key),
            (None, None) => {}
            _ => return Err("`amqp_cert_file` and `amqp_key_file` are of use only together".to_owned()),
        }
        broker.check().map_err(|error| error.to_string())?;
        Ok(broker)
    }

    /// Everything that the relay publishes to and consumes, for one look at it.
    pub(crate) fn whole_topology(&self, mode: TopologyMode) -> Topology {
        let options = self.relay_options();
        let mut topology = options.topology;
        let routed = self.routes.iter().filter_map(|route| route.exchange.as_deref());
        for exchange in routed.filter(|_| mode == TopologyMode::Verify) {
            // Of others, perhaps: it is looked for, and not declared.
            if topology.exchanges.iter().all(|known| known.name != exchange) {
                topology.exchanges.push(exchange.into());
            }
        }
        topology.queues.extend(options.replies.map(|replies| replies.topology(&self.exchange)));
        Topology { mode, ..topology }
    }

    fn topology(&self) -> Topology {
        let mut exchanges = self.exchanges.clone();
        if !exchanges.iter().any(|exchange| exchange.name == self.exchange) {
            exchanges.insert(0, self.exchange.as_str().into());
        }
        let mut queues = self.queues.clone();
        for queue in queues.iter_mut().filter(|queue| queue.exchange.is_empty() && !queue.patterns.is_empty()) {
            queue.exchange.clone_from(&self.exchange);
        }
        Topology { exchanges, queues, mode: self.topology }
    }

    pub(crate) fn relay_options(&self) -> RelayOptions {
        let replies = ReplyQueue {
            name: self.reply_queue.clone(),
            kind: self.reply_queue_kind,
            declare: self.topology == TopologyMode::Declare,
            ..ReplyQueue::default()
        };
        RelayOptions {
            name: self.name.clone(),
            routes: self.routes.clone(),
            exchange: self.exchange.clone(),
            source: self.source.clone(),
            topology: self.topology(),
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

fn both(setting: &str) -> String {
    format!("`{setting}` and `{setting}_file` are both set; use one of them")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_in_the_documentation_can_be_read() {
        let page = include_str!("../../../../docs/RELAY.md");
        let toml = page.split("```toml").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let settings = Figment::from(Serialized::defaults(Settings::default())).merge(Toml::string(toml));
        let topology = settings.extract::<Settings>().unwrap().topology();
        assert_eq!(topology.exchanges[0].name, "orders");
        assert_eq!((topology.queues[0].exchange.as_str(), topology.queues[0].delivery_limit), ("orders", Some(5)));
    }
}
