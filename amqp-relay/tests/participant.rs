//! A participant behind the barrier: whatever comes twice, late or in the wrong order, on real PostgreSQL.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;

use amends::{Encoding, Message};
use amends_postgres::testing::TestDatabase;
use amends_relay::{Handler, HandlerError, Incoming, OUTCOME_HEADER};
use sqlx::types::Json;
use support::courier::{self, Courier, Recall, Ship};

const KEY: &str = "0192d4e0-0000-7000-8000-000000000001/ship";

fn message<M: Message>(message: &M, correlation: String, key: String) -> Incoming {
    Incoming {
        name: M::NAME.to_owned(),
        correlation: Some(correlation),
        reply_to: Some("home".to_owned()),
        idempotency_key: Some(key),
        payload: M::Encoding::encode(message).unwrap(),
        ..Incoming::default()
    }
}

fn ship(attempt: u32, kilograms: u32) -> Incoming {
    message(&Ship { order: 7, kilograms }, format!("{KEY}#{attempt}"), KEY.to_owned())
}

fn recall() -> Incoming {
    message(&Recall { order: 7 }, format!("{KEY}/undo#1"), format!("{KEY}/undo"))
}

struct Street(TestDatabase);

type Row = (String, Json<BTreeMap<String, String>>, Vec<u8>);

/// An answer: its type, what it belongs to, and what it says.
type Answer = (String, String, String);

impl Street {
    async fn open() -> Self {
        let database = TestDatabase::create().await;
        sqlx::raw_sql(courier::TABLES).execute(database.pool()).await.unwrap();
        Self(database)
    }

    async fn deliver(&self, message: &Incoming) {
        let mut tx = self.0.pool().begin().await.unwrap();
        Courier.handle(&mut tx, message).await.unwrap();
        tx.commit().await.unwrap();
    }

    async fn parcels(&self) -> i64 {
        sqlx::query_scalar("select count(*) from parcel").fetch_one(self.0.pool()).await.unwrap()
    }

    async fn answers(&self) -> Vec<Answer> {
        let rows: Vec<Row> =
            sqlx::query_as("select name, headers, payload from amends.outbox where topic = 'home' order by seq")
                .fetch_all(self.0.pool())
                .await
                .unwrap();
        rows.into_iter()
            .map(|(name, Json(headers), payload)| {
                let outcome = headers.get(OUTCOME_HEADER).cloned().unwrap_or_else(|| "done".to_owned());
                let to = headers[amends::CORRELATION_HEADER].strip_prefix(KEY).unwrap().to_owned();
                (format!("{outcome} {name}"), to, String::from_utf8(payload).unwrap())
            })
            .collect()
    }
}

fn answer(kind: &str, to: &str, says: &str) -> Answer {
    (kind.to_owned(), to.to_owned(), says.to_owned())
}

const SHIPPED: &str = r#"{"tracking":"T-7"}"#;

#[tokio::test]
async fn whoever_asks_again_is_answered_again_and_it_is_done_once() {
    let street = Street::open().await;
    for attempt in [1, 2] {
        street.deliver(&ship(attempt, 5)).await;
    }
    assert_eq!(street.parcels().await, 1);
    assert_eq!(
        street.answers().await,
        [answer("done parcel.shipped", "#1", SHIPPED), answer("done parcel.shipped", "#2", SHIPPED)]
    );
}

#[tokio::test]
async fn what_is_undone_twice_is_undone_once_and_answered_twice() {
    let street = Street::open().await;
    street.deliver(&ship(1, 5)).await;
    for _ in 0..2 {
        street.deliver(&recall()).await;
    }
    assert_eq!(street.parcels().await, 0);
    let undone = answer("done amends.undone", "/undo#1", "null");
    assert_eq!(street.answers().await, [answer("done parcel.shipped", "#1", SHIPPED), undone.clone(), undone]);
}

#[tokio::test]
async fn a_request_that_comes_after_its_undoing_does_nothing() {
    let street = Street::open().await;
    street.deliver(&recall()).await;
    street.deliver(&ship(1, 5)).await;
    assert_eq!(street.parcels().await, 0);
    assert_eq!(street.answers().await, [answer("done amends.undone", "/undo#1", "null")]);
}

#[tokio::test]
async fn what_was_refused_is_refused_again_and_there_is_nothing_to_undo() {
    let street = Street::open().await;
    for attempt in [1, 2] {
        street.deliver(&ship(attempt, 31)).await;
    }
    street.deliver(&recall()).await;
    let answers = street.answers().await;
    assert_eq!(street.parcels().await, 0);
    assert_eq!(answers[0].0, "rejected amends.rejected");
    assert_eq!((&answers[0].2, "#2"), (&answers[1].2, answers[1].1.as_str()));
    assert!(answers[0].2.contains("too_heavy"), "{answers:?}");
    assert_eq!(answers[2], answer("done amends.undone", "/undo#1", "null"));
}

#[tokio::test]
async fn what_is_no_request_of_a_saga_is_rejected() {
    let street = Street::open().await;
    let mut tx = street.0.pool().begin().await.unwrap();
    for message in [Incoming { correlation: None, ..ship(1, 5) }, Incoming { idempotency_key: None, ..ship(1, 5) }] {
        let error = Courier.handle(&mut tx, &message).await.unwrap_err();
        assert!(matches!(error, HandlerError::Reject(_)), "{error}");
    }
}
