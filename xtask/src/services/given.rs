//! Servers that the developer names in the environment.

use std::env;
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use url::Url;

use super::kind::Kind;
use crate::error::{Error, Result};

/// The URL that the environment gives for a server, if any.
pub(crate) fn url(kind: Kind) -> Option<String> {
    env::var(kind.variable()).ok().filter(|url| !url.is_empty())
}

/// Checks that something listens where `url` points, and says where that is.
///
/// # Errors
/// When nothing does; the message leaves out the password.
pub(crate) fn check(kind: Kind, url: &str) -> Result<String> {
    let variable = kind.variable();
    // The parser's own message does not repeat the text, which may hold a password.
    let url = Url::parse(url).map_err(|error| Error::failed(format!("{variable} is not a URL: {error}")))?;
    let default = if url.scheme() == "amqps" { 5671 } else { kind.default_port() };
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    if host.is_empty() || host.contains("%2F") || url.query_pairs().any(|(name, _)| name == "host") {
        return Ok("a socket".to_owned());
    }
    let port = url.port().unwrap_or(default);
    let place = format!("{host}:{port}");
    match connect(host, port) {
        Ok(()) => Ok(place),
        Err(error) => Err(Error::failed(format!(
            "{variable} names {place}, where nothing answers: {error}\n\
             Start it, or unset {variable} to have a private {} started",
            kind.name()
        ))),
    }
}

fn connect(host: &str, port: u16) -> std::io::Result<()> {
    let mut last = std::io::Error::other("the name has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, Duration::from_secs(3)) {
            Ok(_) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::{Kind, check};

    #[test]
    fn password_is_not_in_the_message_when_nothing_answers() {
        let error =
            check(Kind::Postgres, "postgres://user:secret@127.0.0.1:1/db").expect_err("nothing answers").to_string();
        assert!(error.contains("DATABASE_URL names 127.0.0.1:1"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn password_is_not_in_the_message_when_the_url_is_none() {
        let error = check(Kind::RabbitMq, "amqp://user:secret@host:port/").expect_err("nothing answers").to_string();
        assert!(!error.contains("secret"), "{error}");
    }
}
