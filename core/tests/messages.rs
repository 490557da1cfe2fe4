//! What becomes of a message between the one who publishes it and its handler.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use amends::{
    AsJson, CLAIM_CHECK_HEADER, CONTENT_ENCODING_HEADER, Call, Codec, Encoding, EncodingError, Error, JsonError,
    MAX_HEADERS_BYTES, MAX_NAME_BYTES, MAX_PAYLOAD_BYTES, Message, OutboxMessage, PayloadStore, Payloads, StepError,
    StoreError, UnpackError,
};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Headers = BTreeMap<String, String>;

#[derive(Debug, PartialEq, Serialize, Deserialize, Message)]
#[message(name = "note.written", key = author)]
struct Note {
    author: String,
    text: String,
}

#[derive(Serialize, Deserialize, Message)]
#[message(name = "card.stored", packed)]
struct Card(String);

fn note(text: &str) -> Note {
    Note { author: "ada".into(), text: text.into() }
}

/// Says what it did: `name(payload)`, under a key that it names in a header.
struct Wrap {
    name: &'static str,
    key: &'static str,
}

impl Codec for Wrap {
    fn name(&self) -> &str {
        self.name
    }

    fn encode(&self, payload: Vec<u8>, headers: &mut Headers) -> Result<Vec<u8>, BoxError> {
        headers.insert(format!("{}-key", self.name), self.key.into());
        Ok([format!("{}:{}(", self.name, self.key).into_bytes(), payload, b")".to_vec()].concat())
    }

    fn decode(&self, payload: Vec<u8>, headers: &Headers) -> Result<Vec<u8>, BoxError> {
        let key = headers.get(&format!("{}-key", self.name)).ok_or("no key")?;
        let start = format!("{}:{key}(", self.name);
        let inner = payload.strip_prefix(start.as_bytes()).and_then(|rest| rest.strip_suffix(b")"));
        Ok(inner.ok_or("it was not wrapped under that key")?.to_vec())
    }
}

#[derive(Clone, Default)]
struct Shelf {
    kept: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    closed: bool,
}

#[async_trait]
impl PayloadStore for Shelf {
    async fn put(&self, key: &str, payload: &[u8]) -> Result<(), BoxError> {
        if self.closed {
            return Err("the shelf is closed".into());
        }
        self.kept.lock().unwrap().insert(key.into(), payload.into());
        Ok(())
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, BoxError> {
        if self.closed { Err("the shelf is closed".into()) } else { Ok(self.kept.lock().unwrap().get(key).cloned()) }
    }
}

fn wraps(payloads: Payloads, key: &'static str) -> Payloads {
    payloads.codec(Wrap { name: "squeeze", key: "0" }).codec(Wrap { name: "lock", key })
}

async fn unpacked(payloads: &Payloads, message: &OutboxMessage) -> Result<Note, UnpackError> {
    let payload = payloads.unpack(&message.headers, message.payload.clone()).await?;
    Ok(AsJson::decode(&payload).unwrap())
}

#[tokio::test]
async fn codecs_are_undone_in_the_reverse_of_the_order_in_which_they_were_applied() {
    let payloads = wraps(Payloads::new(), "1");

    let message = payloads.pack(&note("hello")).await.unwrap();

    assert!(message.payload.starts_with(b"lock:1(squeeze:0({"), "{message:?}");
    assert_eq!(message.headers[CONTENT_ENCODING_HEADER], "squeeze, lock");
    assert_eq!((message.key.as_deref(), &*message.content_type), (Some("ada"), "application/json"));
    assert_eq!(unpacked(&payloads, &message).await.unwrap(), note("hello"));
}

#[tokio::test]
async fn messages_under_an_old_key_or_an_old_codec_are_read_after_a_rotation() {
    let old = wraps(Payloads::new(), "1").pack(&note("old")).await.unwrap();
    let rotated = wraps(Payloads::new(), "2");
    assert_eq!(unpacked(&rotated, &old).await.unwrap(), note("old"));

    let retired = Payloads::new().reads(Wrap { name: "lock", key: "2" }).reads(Wrap { name: "SQUEEZE", key: "0" });
    assert!(!retired.pack(&note("new")).await.unwrap().headers.contains_key(CONTENT_ENCODING_HEADER));
    let error = unpacked(&retired, &old).await.unwrap_err();
    assert!(
        matches!(&error, UnpackError::Codec { codec, .. } if codec == "SQUEEZE"),
        "found whatever its case: {error}"
    );
}

#[tokio::test]
async fn a_consumer_without_the_codec_or_the_store_says_which_one_it_lacks() {
    let message = wraps(Payloads::new().store(Shelf::default(), 0), "1").pack(&note("x")).await.unwrap();
    let error = unpacked(&Payloads::new(), &message).await.unwrap_err();
    assert!(matches!(error, UnpackError::NoStore) && !error.is_passing());

    let message = wraps(Payloads::new(), "1").pack(&note("x")).await.unwrap();
    let error = unpacked(&Payloads::new(), &message).await.unwrap_err();
    assert!(matches!(&error, UnpackError::UnknownEncoding(name) if name == "lock"), "{error}");
    assert!(!error.is_passing() && error.to_string().contains("`lock`"));
}

#[tokio::test]
async fn a_large_payload_is_kept_elsewhere_as_it_is_after_the_codecs_and_a_small_one_is_not() {
    let shelf = Shelf::default();
    let payloads = wraps(Payloads::new().store(shelf.clone(), 1000), "1");
    let large = note(&"x".repeat(3 * MAX_PAYLOAD_BYTES));

    let message = payloads.pack(&large).await.unwrap();
    let again = payloads.pack(&large).await.unwrap();
    let small = payloads.pack(&note("small")).await.unwrap();

    assert!(message.payload.is_empty() && !small.payload.is_empty());
    assert!(!small.headers.contains_key(CLAIM_CHECK_HEADER));
    assert_eq!(message.headers[CLAIM_CHECK_HEADER], again.headers[CLAIM_CHECK_HEADER], "the same payload, once");
    let kept = shelf.kept.lock().unwrap().values().next().unwrap().clone();
    assert_eq!(shelf.kept.lock().unwrap().len(), 1);
    assert!(kept.starts_with(b"lock:1("), "what is kept elsewhere is encrypted too");
    assert_eq!(unpacked(&payloads, &message).await.unwrap(), large);
}

#[tokio::test]
async fn a_stored_payload_that_is_gone_damaged_or_out_of_reach_is_told_apart() {
    let shelf = Shelf::default();
    let payloads = Payloads::new().store(shelf.clone(), 10);
    let message = payloads.pack(&note("a text of some length")).await.unwrap();

    shelf.kept.lock().unwrap().values_mut().for_each(|kept| kept[0] ^= 1);
    assert!(matches!(unpacked(&payloads, &message).await, Err(UnpackError::Damaged(_))));
    shelf.kept.lock().unwrap().clear();
    assert!(matches!(unpacked(&payloads, &message).await, Err(UnpackError::Missing(_))));
    let closed = Payloads::new().store(Shelf { closed: true, ..shelf }, 10);
    assert!(unpacked(&closed, &message).await.is_err_and(|error| error.is_passing()));
    assert!(matches!(closed.pack(&note("a text of some length")).await, Err(Error::Store(StoreError::Unavailable(_)))));
    for claim in ["sha256:", "md5:abc", "sha256:../../etc/passwd"] {
        let mut message = message.clone();
        message.headers.insert(CLAIM_CHECK_HEADER.into(), claim.into());
        assert!(matches!(unpacked(&payloads, &message).await, Err(UnpackError::Malformed(_))), "{claim}");
    }
}

#[test]
fn what_is_too_large_is_refused_by_name_with_what_to_do() {
    let fits = OutboxMessage::new(&note("x")).unwrap();
    let too_large = |message: &OutboxMessage, part: &str| match message.check() {
        Err(Error::TooLarge { what, bytes, limit, .. }) => {
            assert!(what.contains(part) && what.contains(&message.name[..4]) && bytes == limit + 1, "{what}");
        }
        other => panic!("{part}: {other:?}"),
    };
    let (name, payload) = ("n".repeat(MAX_NAME_BYTES + 1), vec![b'x'; MAX_PAYLOAD_BYTES + 1]);
    let header = |name: &str, value: String| Headers::from([(name.to_owned(), value)]);
    too_large(&OutboxMessage { payload: payload.clone(), ..fits.clone() }, "payload");
    too_large(&OutboxMessage { topic: name.clone(), ..fits.clone() }, "topic");
    too_large(&OutboxMessage { name: name.clone(), ..fits.clone() }, "name");
    too_large(&OutboxMessage { content_type: name.clone(), ..fits.clone() }, "content type");
    too_large(&OutboxMessage { headers: header(CONTENT_ENCODING_HEADER, name.clone()), ..fits.clone() }, "encoding");
    too_large(&OutboxMessage { headers: header(&name, String::new()), ..fits.clone() }, "headers");
    // Of the header six bytes of framing and one of its name.
    let (rest, key) = ("v".repeat(MAX_HEADERS_BYTES + 1 - 7 - 10), Some("k".repeat(10)));
    too_large(&OutboxMessage { headers: header("h", rest.clone()), key: key.clone(), ..fits.clone() }, "key");
    let full =
        OutboxMessage { headers: header("h", rest[1..].into()), key, payload: payload[1..].into(), ..fits.clone() };
    full.check().unwrap();
    for nul in [
        OutboxMessage { topic: "\0".into(), ..fits.clone() },
        OutboxMessage { key: Some("\0".into()), ..fits.clone() },
        OutboxMessage { headers: header("h", "\0".into()), ..fits.clone() },
        OutboxMessage { headers: header("\0", "v".into()), ..fits },
    ] {
        assert!(matches!(nul.check(), Err(Error::Json { source: JsonError::Nul, .. })));
    }
}

#[test]
fn a_step_that_publishes_what_is_too_large_is_told_that_trying_again_is_no_use() {
    let call = Call::test("k");
    let error = call.publish(&note(&"x".repeat(MAX_PAYLOAD_BYTES))).unwrap_err();
    assert!(matches!(&error, StepError::Unpublishable(error) if matches!(**error, Error::TooLarge { .. })));
    assert!(error.to_string().contains("pass a reference"), "{error}");
    let large = OutboxMessage { topic: "t".repeat(256), ..OutboxMessage::new(&note("x")).unwrap() };
    assert!(matches!(call.publish_message(large), Err(StepError::Unpublishable(_))));
}

#[tokio::test]
async fn a_message_that_must_be_packed_does_not_leave_without() {
    assert!(matches!(OutboxMessage::new(&Card("4111".into())), Err(Error::NotPacked { name: "card.stored" })));
    assert!(matches!(Call::test("k").publish(&Card("4111".into())), Err(StepError::Unpublishable(_))));
    let packed = wraps(Payloads::new(), "1").pack(&Card("4111".into())).await.unwrap();
    assert!(Call::test("k").publish_message(packed).is_ok());
}

/// Four bytes, the most significant first.
struct BigEndian;

impl Encoding<Count> for BigEndian {
    const CONTENT_TYPE: &'static str = "application/x-count; bits=32";

    fn encode(message: &Count) -> Result<Vec<u8>, EncodingError> {
        if message.0 == 13 { Err(EncodingError::other("it is unlucky")) } else { Ok(message.0.to_be_bytes().to_vec()) }
    }

    fn decode(payload: &[u8]) -> Result<Count, EncodingError> {
        payload.try_into().map(|bytes| Count(u32::from_be_bytes(bytes))).map_err(EncodingError::other)
    }
}

/// It knows nothing of serde.
#[derive(Message)]
#[message(name = "counted", encoding = BigEndian)]
struct Count(u32);

#[test]
fn a_format_of_ones_own_is_a_type_that_the_message_names() {
    let message = OutboxMessage::new(&Count(258)).unwrap();
    assert_eq!((&*message.payload, &*message.content_type), (&[0, 0, 1, 2][..], "application/x-count; bits=32"));
    assert!(BigEndian::reads("Application/X-Count") && !BigEndian::reads("application/json") && !BigEndian::reads(""));
    let error = OutboxMessage::new(&Count(13)).unwrap_err();
    assert!(matches!(error, Error::Encoding { .. }) && error.to_string() == "message `counted`: it is unlucky");
}
