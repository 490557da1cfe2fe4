//! A connection to the broker. Every await has a deadline: a future of the client may never be woken.

mod access;

use std::time::Duration;

use lapin::options::ConfirmSelectOptions;
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use lapin::types::ShortString;
use lapin::uri::AMQPScheme;
use lapin::{Channel, Connection, ConnectionProperties, ErrorKind};
use tokio::time::timeout;

use crate::RelayError;

pub use access::Broker;

/// How long the broker may take to answer anything but a confirm.
const ANSWER: Duration = Duration::from_secs(10);

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

/// Connects, without the client's own recovery: after any error the connection is made anew, with the credentials that the
/// files hold by then.
pub(crate) async fn connect(broker: &Broker, name: &str) -> Result<Connection, RelayError> {
    let access = broker.access().await?;
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let encrypted = access.uri.scheme == AMQPScheme::AMQPS;
    let runtime = lapin::runtime::default_runtime()?;
    let connecting = Connection::connect_uri_with_config(access.uri, properties, access.tls, runtime);
    let (problem, mend, source) = match timeout(ANSWER, connecting).await {
        Ok(Ok(connection)) => return Ok(connection),
        Ok(Err(error)) => {
            let (problem, mend) = explain(&error, encrypted);
            (problem, mend, Some(Box::new(error)))
        }
        Err(_) => (format!("no answer within {ANSWER:?}"), UNREACHABLE, None),
    };
    Err(RelayError::Connect { broker: broker.to_string(), problem, mend, source })
}

const UNREACHABLE: &str = "check that it runs and that the address is right";

/// Why there is no connection, and what helps.
fn explain(error: &lapin::Error, encrypted: bool) -> (String, &'static str) {
    let text = match error.kind() {
        ErrorKind::IOError(error) => error.to_string(),
        ErrorKind::ProtocolError(error) => error.get_message().to_string(),
        _ => error.to_string(),
    };
    let code = match error.kind() {
        ErrorKind::ProtocolError(error) => Some(error.kind().clone()),
        _ => None,
    };
    let mend = match code {
        Some(AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED)) => {
            "check the user and the password, in the URL or in their files"
        }
        Some(AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED)) => {
            "check the virtual host at the end of the URL, `%2f` for `/`, and that the user may use it"
        }
        // What the broker says before it closes is lost now and then.
        _ if text.contains("fatal alert") || (encrypted && is_closed(error)) => {
            "the broker refuses this client's certificate, or wants one: check `amqp_cert_file` and `amqp_key_file` \
             (Broker::client_certificate)"
        }
        _ if text.contains("UnknownIssuer") => {
            "the broker's certificate is signed by nobody who is trusted: name the CA's certificate (`amqp_ca_file`, Broker::ca_file)"
        }
        _ if text.contains("certificate expired") || text.contains("Expired") => {
            "the broker's certificate has run out: give the broker a new one"
        }
        _ if text.contains("NotValidForName") || text.contains("not valid for name") => {
            "the broker's certificate is for another host: use the name that is in it"
        }
        _ => UNREACHABLE,
    };
    (text, mend)
}

fn is_closed(error: &lapin::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let ErrorKind::IOError(error) = error.kind() else { return false };
    [BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof].contains(&error.kind())
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
