//! Where a broker is, and how to be let in.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use lapin::tcp::{OwnedIdentity, OwnedTLSConfig};
use lapin::uri::{AMQPScheme, AMQPUri};
use url::Url;

use crate::RelayError;

/// Where a broker is, and how to be let in. Its text never shows a password.
///
/// Files are read at every connect: what they hold may change while a relay or a consumer runs, and counts from the next
/// connection on. `amqps://` encrypts; the broker's certificate must then be for the host in the URL, and signed by an authority
/// that the system trusts, or by the one in [`ca_file`](Self::ca_file).
///
/// ```
/// use amends_relay::Broker;
///
/// let simple: Broker = "amqp://localhost:5672/%2f".parse()?;
/// let safe = "amqps://rabbit.example.com/orders"
///     .parse::<Broker>()?
///     .ca_file("/etc/amends/ca.pem")
///     .client_certificate("/etc/amends/cert.pem", "/etc/amends/key.pem")
///     .username_file("/run/secrets/amqp-username")
///     .password_file("/run/secrets/amqp-password");
/// # Ok::<(), amends_relay::RelayError>(())
/// ```
#[derive(Clone)]
pub struct Broker {
    address: Address,
    username: Option<PathBuf>,
    password: Option<PathBuf>,
    ca: Option<PathBuf>,
    client: Option<(PathBuf, PathBuf)>,
}

#[derive(Clone)]
enum Address {
    Url { uri: AMQPUri, shown: String },
    File(PathBuf),
}

/// What a connection is made with.
pub(super) struct Access {
    pub(super) uri: AMQPUri,
    pub(super) tls: OwnedTLSConfig,
}

impl Broker {
    /// A broker whose whole URL, with user and password, is in a file.
    pub fn at_url_in(file: impl Into<PathBuf>) -> Self {
        Self::at(Address::File(file.into()))
    }

    /// The user, in place of the one in the URL.
    #[must_use]
    pub fn username_file(self, file: impl Into<PathBuf>) -> Self {
        Self { username: Some(file.into()), ..self }
    }

    /// The password, in place of the one in the URL. Line ends behind it do not count.
    #[must_use]
    pub fn password_file(self, file: impl Into<PathBuf>) -> Self {
        Self { password: Some(file.into()), ..self }
    }

    /// The certificate, or several, of authorities that are trusted beside those of the system. PEM.
    #[must_use]
    pub fn ca_file(self, file: impl Into<PathBuf>) -> Self {
        Self { ca: Some(file.into()), ..self }
    }

    /// The certificate by which the broker knows this client, with those between it and the authority, and its key. PEM.
    #[must_use]
    pub fn client_certificate(self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self { client: Some((certificate.into(), key.into())), ..self }
    }

    /// Reads everything once, without connecting.
    ///
    /// # Errors
    /// When a file cannot be read or does not hold what it should, or the URL is not valid.
    pub fn check(&self) -> Result<(), RelayError> {
        self.read().map(drop)
    }

    /// Reads the files in a thread that may block.
    pub(super) async fn access(&self) -> Result<Access, RelayError> {
        let broker = self.clone();
        let reading = tokio::task::spawn_blocking(move || broker.read());
        reading.await.map_err(|error| RelayError::Url(format!("reading its files failed: {error}")))?
    }

    fn at(address: Address) -> Self {
        Self { address, username: None, password: None, ca: None, client: None }
    }

    fn read(&self) -> Result<Access, RelayError> {
        let mut uri = match &self.address {
            Address::Url { uri, .. } => uri.clone(),
            Address::File(file) => parse(&secret("broker's URL", file)?)?.0,
        };
        if let Some(file) = &self.username {
            uri.authority.userinfo.username = secret("broker's user", file)?;
        }
        if let Some(file) = &self.password {
            uri.authority.userinfo.password = secret("broker's password", file)?;
        }
        if uri.scheme == AMQPScheme::AMQP && (self.ca.is_some() || self.client.is_some()) {
            return Err(RelayError::Url("certificates are given, but it does not begin with amqps://".into()));
        }
        let cert_chain = self.ca.as_deref().map(|file| pem("CA's certificate", file, "CERTIFICATE")).transpose()?;
        let identity = match &self.client {
            Some((certificate, key)) => Some(OwnedIdentity::PKCS8 {
                pem: pem("client's certificate", certificate, "CERTIFICATE")?.into_bytes(),
                key: pem("client's key", key, "PRIVATE KEY")?.into_bytes(),
            }),
            None => None,
        };
        Ok(Access { uri, tls: OwnedTLSConfig { identity, cert_chain } })
    }
}

impl std::str::FromStr for Broker {
    type Err = RelayError;

    fn from_str(text: &str) -> Result<Self, RelayError> {
        let (uri, shown) = parse(text)?;
        Ok(Self::at(Address::Url { uri, shown }))
    }
}

impl fmt::Display for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Address::Url { shown, .. } => f.write_str(shown),
            Address::File(file) => write!(f, "the broker in {}", file.display()),
        }
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A URL as the client wants it, and without its password.
fn parse(text: &str) -> Result<(AMQPUri, String), RelayError> {
    let mut shown = Url::parse(text).map_err(|error| RelayError::Url(error.to_string()))?;
    if !["amqp", "amqps"].contains(&shown.scheme()) {
        return Err(RelayError::Url(format!("its scheme is `{}`", shown.scheme())));
    }
    let uri = text.parse().map_err(|_| RelayError::Url("it cannot be taken apart".into()))?;
    if shown.password().is_some() {
        // Fails only for URLs without a host, which were refused above.
        let _ = shown.set_password(Some("***"));
    }
    Ok((uri, shown.to_string()))
}

fn secret(what: &'static str, file: &Path) -> Result<String, RelayError> {
    let text = read(what, file)?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(RelayError::Content { what, path: file.to_owned(), problem: "it is empty".to_owned() });
    }
    Ok(text.to_owned())
}

/// A file with a PEM block of a kind. The client would leave out what it cannot read, and then trust nobody.
fn pem(what: &'static str, file: &Path, kind: &str) -> Result<String, RelayError> {
    let text = read(what, file)?;
    if text.lines().any(|line| line.starts_with("-----BEGIN ") && line.contains(kind)) {
        return Ok(text);
    }
    Err(RelayError::Content { what, path: file.to_owned(), problem: format!("it has no line -----BEGIN {kind}-----") })
}

fn read(what: &'static str, path: &Path) -> Result<String, RelayError> {
    fs::read_to_string(path).map_err(|source| RelayError::File { what, path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        let broker: Broker = "amqp://guest:s3cret@127.0.0.1:5672/%2f".parse().unwrap();
        assert!(!format!("{broker} {broker:?}").contains("s3cret"));
        let wrong = "amqp://guest:s3cret@:5672:1/".parse::<Broker>().unwrap_err();
        assert!(!wrong.to_string().contains("s3cret"), "{wrong}");
        assert!("postgres://x".parse::<Broker>().is_err());
    }

    #[test]
    fn what_a_file_should_hold_and_does_not_is_said_by_its_name_and_not_by_its_content() {
        let file = std::env::temp_dir().join(format!("amends-access-{}", uuid::Uuid::new_v4()));
        let broker = || "amqps://localhost/".parse::<Broker>().unwrap();
        let said = |broker: Broker| broker.check().unwrap_err().to_string();
        assert!(said(broker().password_file(&file)).contains("password"));
        fs::write(&file, "amqp:s3cret").unwrap();
        for wrong in [broker().ca_file(&file), broker().client_certificate(&file, &file), Broker::at_url_in(&file)] {
            let text = said(wrong);
            assert!(!text.contains("s3cret"), "{text}");
        }
        assert!(said(broker().ca_file(&file)).contains(&*file.to_string_lossy()));
        let plain = "amqp://localhost/".parse::<Broker>().unwrap();
        assert!(said(plain.ca_file(&file)).contains("amqps://"));
        fs::write(&file, "s3cret\n").unwrap();
        let read = broker().password_file(&file).read().unwrap();
        assert_eq!(read.uri.authority.userinfo.password, "s3cret");
        fs::remove_file(&file).unwrap();
    }
}
