//! The semantics of sagas, on PostgreSQL: the same suite that `amends` runs on its store in memory.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;

use amends::{Answer, Correlation, MessageId, OutboxMessage};
use amends_postgres::testing::TestDatabase;
use amends_postgres::{PgStore, deliver_reply};
use sqlx::types::Json;

#[path = "../../core/tests/semantics/suite.rs"]
mod suite;

pub(crate) struct Here {
    store: PgStore,
    database: TestDatabase,
}

type Row = (uuid::Uuid, String, String, Option<String>, String, Json<BTreeMap<String, String>>, Vec<u8>);

impl suite::Backend for Here {
    type Store = PgStore;

    async fn open() -> Self {
        let database = TestDatabase::create().await;
        Self { store: PgStore::new(database.pool().clone()), database }
    }

    fn store(&self) -> PgStore {
        self.store.clone()
    }

    async fn published(&self) -> Vec<OutboxMessage> {
        let rows: Vec<Row> = sqlx::query_as(
            "select id, topic, name, key, content_type, headers, payload from amends.outbox order by seq",
        )
        .fetch_all(self.database.pool())
        .await
        .unwrap();
        rows.into_iter()
            .map(|(id, topic, name, key, content_type, Json(headers), payload)| OutboxMessage {
                id: MessageId(id),
                topic,
                name,
                key,
                content_type,
                headers,
                payload,
            })
            .collect()
    }

    async fn reply(&self, to: &Correlation, answer: Answer) {
        let mut conn = self.database.pool().acquire().await.unwrap();
        let id = uuid::Uuid::now_v7();
        deliver_reply(&mut conn, to.saga, &to.step, to.undo, to.attempt, &answer, id).await.unwrap();
    }
}
