//! A connection to the broker. Every await has a deadline: a future of the client may never be woken.

use std::time::Duration;

use lapin::options::ConfirmSelectOptions;
use lapin::types::ShortString;
use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionProperties};
use tokio::time::timeout;
use url::Url;

use crate::RelayError;

/// How long the broker may take to answer anything but a confirm.
const ANSWER: Duration = Duration::from_secs(10);

/// The address of a broker. Its text never shows the password.
#[derive(Clone)]
pub struct AmqpUrl {
    uri: AMQPUri,
    shown: String,
}

impl std::fmt::Debug for AmqpUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown)
    }
}

impl std::fmt::Display for AmqpUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown)
    }
}

impl std::str::FromStr for AmqpUrl {
    type Err = RelayError;

    fn from_str(text: &str) -> Result<Self, RelayError> {
        let mut shown = Url::parse(text).map_err(|error| RelayError::Url(error.to_string()))?;
        if !["amqp", "amqps"].contains(&shown.scheme()) {
            return Err(RelayError::Url(format!("its scheme is `{}`", shown.scheme())));
        }
        let uri = text.parse().map_err(|_| RelayError::Url("it cannot be taken apart".into()))?;
        if shown.password().is_some() {
            // Fails only for URLs without a host, which were refused above.
            let _ = shown.set_password(Some("***"));
        }
        Ok(Self { uri, shown: shown.to_string() })
    }
}

/// Waits for the broker, but not for ever.
pub(crate) async fn within<T>(
    limit: Duration,
    what: &'static str,
    answer: impl Future<Output = lapin::Result<T>>,
) -> Result<T, RelayError> {
    match timeout(limit, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(RelayError::Deadline { what, limit }),
    }
}

/// As [`within`], for what the broker answers at once.
pub(crate) async fn soon<T>(
    what: &'static str,
    answer: impl Future<Output = lapin::Result<T>>,
) -> Result<T, RelayError> {
    within(ANSWER, what, answer).await
}

/// Connects, without the client's own recovery: after any error the connection is made anew.
pub(crate) async fn connect(url: &AmqpUrl, name: &str) -> Result<Connection, RelayError> {
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    soon("connect", Connection::connect_uri(url.uri.clone(), properties)).await
}

/// A channel whose publishes are confirmed.
pub(crate) async fn confirmed_channel(connection: &Connection) -> Result<Channel, RelayError> {
    let channel = soon("open a channel", connection.create_channel()).await?;
    soon("select confirms", channel.confirm_select(ConfirmSelectOptions::default())).await?;
    Ok(channel)
}

/// Closes politely; a broker that does not answer is left alone.
pub(crate) async fn close(connection: &Connection) {
    let _ = timeout(Duration::from_secs(2), connection.close(200, "bye".into())).await;
}

pub(crate) fn short(what: &'static str, name: &str) -> Result<ShortString, RelayError> {
    ShortString::try_new(name).map_err(|_| RelayError::NameTooLong { what, name: amends::sanitize(name) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        let url: AmqpUrl = "amqp://guest:s3cret@127.0.0.1:5672/%2f".parse().unwrap();
        assert!(!format!("{url} {url:?}").contains("s3cret"));
        let wrong = "amqp://guest:s3cret@:5672:1/".parse::<AmqpUrl>().unwrap_err();
        assert!(!wrong.to_string().contains("s3cret"), "{wrong}");
        assert!("postgres://x".parse::<AmqpUrl>().is_err());
    }
}
