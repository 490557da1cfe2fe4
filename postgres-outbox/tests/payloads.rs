//! What is published is stored whole or refused with a reason; large payloads are kept beside it; Debezium finds its columns.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::time::Duration;

use amends::{CLAIM_CHECK_HEADER, Error, MAX_PAYLOAD_BYTES, Message, OutboxMessage, PayloadStore, Payloads};
use amends_postgres::testing::TestDatabase;
use amends_postgres::{Outbox, PgPayloads};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;

#[derive(Serialize, Deserialize, Message)]
#[message(name = "shop.order.placed", key = order)]
struct OrderPlaced {
    order: String,
    note: String,
}

fn placed(note: &str) -> OrderPlaced {
    OrderPlaced { order: "o-7".into(), note: note.into() }
}

async fn count(pool: &PgPool, table: &'static str) -> i64 {
    let query = match table {
        "outbox" => "select count(*) from amends.outbox",
        _ => "select count(*) from amends.payload",
    };
    sqlx::query_scalar(query).fetch_one(pool).await.unwrap()
}

#[tokio::test]
async fn what_does_not_fit_is_refused_before_anything_is_written_and_the_transaction_lives_on() {
    let database = TestDatabase::create().await;
    let mut tx = database.pool().begin().await.unwrap();
    let small = OutboxMessage::new(&placed("small")).unwrap();
    let large = OutboxMessage { payload: vec![b'x'; MAX_PAYLOAD_BYTES + 1], ..small.clone() };

    let refused = Outbox::publish_all(&mut tx, &[small, large]).await;
    assert!(matches!(refused, Err(Error::TooLarge { limit: MAX_PAYLOAD_BYTES, .. })), "{refused:?}");
    let refused = Outbox::publish(&mut tx, &placed(&"x".repeat(MAX_PAYLOAD_BYTES))).await;
    assert!(matches!(refused, Err(Error::TooLarge { .. })), "{refused:?}");
    Outbox::publish(&mut tx, &placed("fits")).await.unwrap();
    tx.commit().await.unwrap();

    assert_eq!(count(database.pool(), "outbox").await, 1);
}

#[tokio::test]
async fn who_publishes_in_sql_is_refused_what_no_broker_could_take() {
    let database = TestDatabase::create().await;
    let publish = "select amends.publish($1, '{}', key => $2, headers => jsonb_build_object('h', $3::text))";
    let pool = database.pool();
    let published = |topic: usize, key: usize, header: usize| async move {
        let text = |bytes| "x".repeat(bytes);
        let query = sqlx::query(publish).bind(text(topic)).bind(text(key)).bind(text(header));
        query.execute(pool).await.map_err(|error| error.into_database_error().unwrap().constraint().unwrap().to_owned())
    };
    assert!(published(255, 10_000, 60_000).await.is_ok());
    for (topic, key, header) in [(256, 1, 1), (1, 98_302, 1), (1, 1, 98_304)] {
        assert_eq!(published(topic, key, header).await.unwrap_err(), "outbox_fits");
    }
}

#[tokio::test]
async fn a_large_payload_is_kept_once_and_its_message_carries_the_reference() {
    let database = TestDatabase::create().await;
    let pool = database.pool();
    let payloads = Payloads::new().store(PgPayloads::new(pool.clone()), 1000);
    let large = placed(&"é".repeat(MAX_PAYLOAD_BYTES));

    let mut tx = pool.begin().await.unwrap();
    for _ in 0..2 {
        let message = payloads.pack(&large).await.unwrap();
        Outbox::publish_all(&mut tx, &[message]).await.unwrap();
    }
    tx.commit().await.unwrap();

    let (headers, bytes): (sqlx::types::Json<BTreeMap<String, String>>, Vec<u8>) =
        sqlx::query_as("select headers, payload from amends.outbox limit 1").fetch_one(pool).await.unwrap();
    assert!(headers.contains_key(CLAIM_CHECK_HEADER) && bytes.is_empty());
    assert_eq!((count(pool, "outbox").await, count(pool, "payload").await), (2, 1));
    let read: OrderPlaced = serde_json::from_slice(&payloads.unpack(&headers, bytes).await.unwrap()).unwrap();
    assert_eq!(read.note, large.note);
}

#[tokio::test]
async fn an_old_payload_goes_unless_it_was_needed_again() {
    let database = TestDatabase::create().await;
    let pool = database.pool();
    let store = PgPayloads::new(pool.clone());
    for key in ["old", "again"] {
        store.put(key, key.as_bytes()).await.unwrap();
    }
    let age = "update amends.payload set stored_at = stored_at - interval '2 days'";
    sqlx::query(age).execute(pool).await.unwrap();
    store.put("young", b"young").await.unwrap();
    store.put("again", b"again").await.unwrap();

    let pruned = PgPayloads::prune(pool, Duration::from_hours(24)).await.unwrap();

    assert_eq!(pruned, 1);
    assert_eq!(store.get("old").await.unwrap(), None);
    assert_eq!(store.get("again").await.unwrap().as_deref(), Some(&b"again"[..]));
    assert_eq!(store.get("young").await.unwrap().as_deref(), Some(&b"young"[..]));
}

/// Id, aggregatetype, aggregateid, type, payload, whether timestamp is the time of the row, tracingspancontext.
type Row = (String, String, String, String, Vec<u8>, bool, Option<String>);

#[tokio::test]
async fn the_view_has_the_columns_of_debeziums_event_router() {
    let database = TestDatabase::create().await;
    let pool = database.pool();
    let mut message = OutboxMessage::new(&placed("x")).unwrap();
    message.headers = BTreeMap::from([("traceparent".into(), "00-1-2-01".into())]);
    let bare = OutboxMessage { key: None, topic: "tick".into(), headers: BTreeMap::new(), ..message.clone() };
    let mut conn = pool.acquire().await.unwrap();
    Outbox::publish_all(&mut conn, &[message.clone(), bare]).await.unwrap();

    let rows: Vec<Row> = sqlx::query_as(
        "select d.id::text, aggregatetype, aggregateid, d.type, d.payload, d.timestamp = o.created_at, tracingspancontext
         from amends.debezium_outbox d join amends.outbox o using (seq) order by seq",
    )
    .fetch_all(pool)
    .await
    .unwrap();

    let (id, trace) = (message.id.to_string(), Some("traceparent=00-1-2-01".to_owned()));
    let of = |aggregate: &str, key: &str, trace| {
        (id.clone(), aggregate.into(), key.into(), "shop.order.placed".into(), message.payload.clone(), true, trace)
    };
    assert_eq!(rows, [of("shop.order", "o-7", trace), of("tick", &id, None)]);
}
