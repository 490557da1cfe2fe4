//! A database for the conformance suite.

use std::collections::BTreeMap;

use amends::testing::conformance::Backend;
use amends::{Error, MessageId, OutboxMessage, StoreError};
use amends_postgres::PgStore;
use amends_postgres::testing::TestDatabase;
use sqlx::types::Json;
use sqlx::{PgConnection, Postgres, Transaction};

pub(crate) struct Here(pub(crate) TestDatabase);

type Row = (uuid::Uuid, String, String, Option<String>, String, Json<BTreeMap<String, String>>, Vec<u8>);

impl Backend for Here {
    type Store = PgStore;
    type Transaction = Transaction<'static, Postgres>;

    async fn open() -> Self {
        Self(TestDatabase::create().await)
    }

    fn connect(&self) -> PgStore {
        PgStore::new(self.0.pool().clone())
    }

    async fn begin(&self) -> Self::Transaction {
        self.0.pool().begin().await.unwrap()
    }

    fn conn(transaction: &mut Self::Transaction) -> &mut PgConnection {
        transaction
    }

    async fn commit(transaction: Self::Transaction) -> Result<(), Error> {
        transaction.commit().await.map_err(|error| Error::Store(StoreError::Unavailable(Box::new(error))))
    }

    async fn rollback(transaction: Self::Transaction) {
        transaction.rollback().await.unwrap();
    }

    async fn published(&self) -> Vec<OutboxMessage> {
        let rows: Vec<Row> = sqlx::query_as(
            "select id, topic, name, key, content_type, headers, payload from amends.outbox order by seq",
        )
        .fetch_all(self.0.pool())
        .await
        .unwrap();
        let message = |(id, topic, name, key, content_type, Json(headers), payload)| OutboxMessage {
            id: MessageId(id),
            topic,
            name,
            key,
            content_type,
            headers,
            payload,
        };
        rows.into_iter().map(message).collect()
    }
}
