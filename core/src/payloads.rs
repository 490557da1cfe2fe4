//! Payloads that are encrypted, compressed or kept elsewhere on their way from a publisher to its consumers.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::{CONTENT_ENCODING_HEADER, Error, Message, OutboxMessage, StoreError};

/// The header of a message whose payload is in a [`PayloadStore`]: `sha256:` and the key, which is its hash.
pub const CLAIM_CHECK_HEADER: &str = "amends-claim-check";

/// The largest payload that is put into a [`PayloadStore`]: 64 MiB.
pub const MAX_STORED_BYTES: usize = 64 << 20;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Encrypts, compresses or otherwise changes whole payloads, and changes them back.
///
/// What it needs to know for the way back, such as which key it used, it writes into headers of its own: so keys rotate while
/// messages under old ones are still on their way.
pub trait Codec: Send + Sync + 'static {
    /// Its name in the header [`CONTENT_ENCODING_HEADER`], such as `zstd`: a token without commas or spaces.
    ///
    /// # Stability
    /// Messages on their way, and kept ones, name it.
    fn name(&self) -> &str;

    /// Changes a payload, before it gets into the outbox.
    ///
    /// # Errors
    /// Any error: the message is not published.
    fn encode(&self, payload: Vec<u8>, headers: &mut BTreeMap<String, String>) -> Result<Vec<u8>, BoxError>;

    /// Changes it back, before a handler sees it. Bound what you allocate: the bytes come from a network.
    ///
    /// # Errors
    /// Any error: the message goes to the dead letters.
    fn decode(&self, payload: Vec<u8>, headers: &BTreeMap<String, String>) -> Result<Vec<u8>, BoxError>;
}

/// Keeps large payloads outside of the outbox and the broker, where publishers and consumers both reach it: `PgPayloads` in a
/// database of PostgreSQL, or your own in an object store.
#[async_trait]
pub trait PayloadStore: Send + Sync + 'static {
    /// Keeps a payload, durably, before it returns.
    ///
    /// # Idempotency
    /// The key is the payload's hash: what is there already is the same, and its retention begins anew.
    ///
    /// # Errors
    /// Any error counts as a passing one.
    async fn put(&self, key: &str, payload: &[u8]) -> Result<(), BoxError>;

    /// The payload, or `None` if there is none.
    ///
    /// # Errors
    /// Any error counts as a passing one.
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, BoxError>;
}

/// What a service does to payloads that leave it, and how it reads those that come: codecs in their order, then a store for
/// what is still large.
///
/// ```
/// use std::collections::BTreeMap;
/// use amends::{Codec, Message, Payloads};
/// # use serde::{Serialize, Deserialize};
/// # type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// # type Headers = BTreeMap<String, String>;
///
/// /// Not a cipher that anybody should use.
/// struct Flip;
///
/// impl Codec for Flip {
///     fn name(&self) -> &str {
///         "flip"
///     }
///     fn encode(&self, payload: Vec<u8>, headers: &mut Headers) -> Result<Vec<u8>, BoxError> {
///         headers.insert("flip-key".into(), "255".into());
///         Ok(payload.into_iter().map(|byte| byte ^ 255).collect())
///     }
///     fn decode(&self, payload: Vec<u8>, headers: &Headers) -> Result<Vec<u8>, BoxError> {
///         let key: u8 = headers.get("flip-key").ok_or("no key")?.parse()?;
///         Ok(payload.into_iter().map(|byte| byte ^ key).collect())
///     }
/// }
///
/// /// `packed`: it can not be published by mistake without.
/// #[derive(Serialize, Deserialize, Message)]
/// #[message(name = "card.stored", packed)]
/// struct CardStored { number: String }
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let payloads = Payloads::new().codec(Flip);
/// let message = payloads.pack(&CardStored { number: "4111".into() }).await?;
/// assert_eq!(message.headers["content-encoding"], "flip");
/// assert_eq!(payloads.unpack(&message.headers, message.payload).await?, br#"{"number":"4111"}"#);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct Payloads {
    codecs: Vec<Arc<dyn Codec>>,
    /// Known for reading only.
    old: Vec<Arc<dyn Codec>>,
    store: Option<(Arc<dyn PayloadStore>, usize)>,
}

impl Payloads {
    /// Payloads as they are.
    pub fn new() -> Self {
        Self::default()
    }

    /// Encodes every payload with this codec, after those before it.
    #[must_use]
    pub fn codec(mut self, codec: impl Codec) -> Self {
        self.codecs.push(Arc::new(codec));
        self
    }

    /// Reads payloads of this codec too, and writes none.
    #[must_use]
    pub fn reads(mut self, codec: impl Codec) -> Self {
        self.old.push(Arc::new(codec));
        self
    }

    /// Keeps payloads of more than `threshold` bytes, after the codecs, in this store; their messages carry a reference.
    #[must_use]
    pub fn store(mut self, store: impl PayloadStore, threshold: usize) -> Self {
        self.store = Some((Arc::new(store), threshold));
        self
    }

    /// Puts a typed message into its envelope, its payload encoded, and stored if it is large: what
    /// `Outbox::publish_all` and the `publish_message` of a step publish. Call it before the transaction writes anything:
    /// a payload in the store of a transaction that is rolled back is garbage, and goes by its age.
    ///
    /// # Errors
    /// As [`OutboxMessage::new`]; [`Error::Codec`] if a codec fails; [`StoreError::Unavailable`] if the store does.
    pub async fn pack<M: Message>(&self, message: &M) -> Result<OutboxMessage, Error> {
        let mut message = OutboxMessage::encoded(message)?;
        self.encode(&mut message)?;
        self.check_in(&mut message).await?;
        message.check()?;
        Ok(message)
    }

    fn encode(&self, message: &mut OutboxMessage) -> Result<(), Error> {
        let mut applied = Vec::new();
        for codec in &self.codecs {
            let payload = std::mem::take(&mut message.payload);
            message.payload = codec.encode(payload, &mut message.headers).map_err(|source| Error::Codec {
                codec: codec.name().to_owned(),
                name: message.name.clone(),
                source,
            })?;
            applied.push(codec.name());
        }
        if !applied.is_empty() {
            message.headers.insert(CONTENT_ENCODING_HEADER.to_owned(), applied.join(", "));
        }
        Ok(())
    }

    async fn check_in(&self, message: &mut OutboxMessage) -> Result<(), Error> {
        let Some((store, threshold)) = &self.store else { return Ok(()) };
        let bytes = message.payload.len();
        if bytes <= *threshold {
            return Ok(());
        }
        if bytes > MAX_STORED_BYTES {
            let what = format!("the payload of message `{}`", message.name);
            let advice = "put it into an object store yourself and pass a reference";
            return Err(Error::TooLarge { what, bytes, limit: MAX_STORED_BYTES, advice });
        }
        let key = hash(&message.payload);
        store.put(&key, &message.payload).await.map_err(StoreError::Unavailable)?;
        message.headers.insert(CLAIM_CHECK_HEADER.to_owned(), format!("sha256:{key}"));
        message.payload = Vec::new();
        Ok(())
    }

    /// Whether a message with these headers was packed: its payload is encoded, or kept elsewhere.
    pub fn is_packed(headers: &BTreeMap<String, String>) -> bool {
        headers.contains_key(CLAIM_CHECK_HEADER) || encodings(headers).next().is_some()
    }

    /// The payload as it was before it was packed. A message that says nothing of an encoding comes back as it is.
    ///
    /// # Errors
    /// An [`UnpackError`] that says why not, and whether to try again.
    pub async fn unpack(&self, headers: &BTreeMap<String, String>, payload: Vec<u8>) -> Result<Vec<u8>, UnpackError> {
        let mut payload = match headers.get(CLAIM_CHECK_HEADER) {
            Some(claim) => self.check_out(claim).await?,
            None => payload,
        };
        for name in encodings(headers).rev() {
            let codec = self.codecs.iter().chain(&self.old).find(|codec| codec.name().eq_ignore_ascii_case(name));
            let codec = codec.ok_or_else(|| UnpackError::UnknownEncoding(crate::sanitize(name)))?;
            payload = codec
                .decode(payload, headers)
                .map_err(|source| UnpackError::Codec { codec: codec.name().to_owned(), source })?;
        }
        Ok(payload)
    }

    async fn check_out(&self, claim: &str) -> Result<Vec<u8>, UnpackError> {
        let key =
            claim.strip_prefix("sha256:").filter(|key| key.len() == 64 && key.bytes().all(|c| c.is_ascii_hexdigit()));
        let key = key.ok_or_else(|| UnpackError::Malformed(crate::sanitize(claim)))?;
        let (store, _) = self.store.as_ref().ok_or(UnpackError::NoStore)?;
        let found = store.get(key).await.map_err(UnpackError::Unavailable)?;
        let payload = found.ok_or_else(|| UnpackError::Missing(key.to_owned()))?;
        if hash(&payload) == key { Ok(payload) } else { Err(UnpackError::Damaged(key.to_owned())) }
    }
}

/// The names of the encodings, in the order in which they were applied.
fn encodings(headers: &BTreeMap<String, String>) -> impl DoubleEndedIterator<Item = &str> {
    /// Many publishers put the character set there, such as Spring's and Celery's.
    const NONE: [&str; 5] = ["", "identity", "utf-8", "utf8", "us-ascii"];
    let all = headers.get(CONTENT_ENCODING_HEADER).map_or("", String::as_str);
    all.split(',').map(str::trim).filter(|name| !NONE.iter().any(|none| none.eq_ignore_ascii_case(name)))
}

fn hash(payload: &[u8]) -> String {
    use std::fmt::Write;
    let digest = Sha256::digest(payload);
    digest.iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a string never fails.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl fmt::Debug for Payloads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |codecs: &[Arc<dyn Codec>]| codecs.iter().map(|codec| codec.name().to_owned()).collect::<Vec<_>>();
        f.debug_struct("Payloads")
            .field("codecs", &names(&self.codecs))
            .field("reads", &names(&self.old))
            .field("stored_above", &self.store.as_ref().map(|(_, threshold)| threshold))
            .finish()
    }
}

/// Why the payload of a message cannot be had.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum UnpackError {
    /// The store of payloads cannot be reached now.
    #[error("the store of payloads is not available: {0}")]
    Unavailable(#[source] BoxError),
    /// A codec that this consumer does not have.
    #[error("its payload is encoded as `{0}`, and no codec of that name is registered here; add it to `Payloads`")]
    UnknownEncoding(String),
    /// Its payload is in a store, and this consumer has none.
    #[error("its payload is in a store of payloads, and none is registered here; add it to `Payloads`")]
    NoStore,
    /// The header is not one of ours.
    #[error("its header `{CLAIM_CHECK_HEADER}` is `{0}`; it should be `sha256:` and 64 hexadecimal digits")]
    Malformed(String),
    /// The payload is not in the store.
    #[error("its payload {0} is not in the store of payloads; its retention may be too short, or it is another store")]
    Missing(String),
    /// The payload is not the one that was sent.
    #[error("the payload that the store holds as {0} has another hash; it was damaged or replaced")]
    Damaged(String),
    /// A codec cannot read it.
    #[error("the codec `{codec}` cannot read its payload: {source}")]
    Codec {
        /// The codec.
        codec: String,
        /// Why not.
        source: BoxError,
    },
}

impl UnpackError {
    /// Whether the same message may be read later.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}
