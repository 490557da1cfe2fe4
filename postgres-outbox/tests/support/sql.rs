//! The SQL functions as another language calls them, and the saga that the tests call them for.

use std::time::Duration;

use amends::{Answer, Compensation, Definition, Json, SagaId, Step, StepKind};
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

/// approve (signal) → offer (request; compensated by a request too) → decide (request, pivot).
pub fn definition(patience: Duration) -> Definition {
    let offer = Step {
        after: vec![0].into(),
        compensation: Some(Compensation::new("withdraw".into(), StepKind::Request)),
        ..Step::new("offer".into(), StepKind::Request)
    };
    let decide =
        Step { after: vec![1].into(), pivot: true, timeout: patience, ..Step::new("decide".into(), StepKind::Request) };
    let steps = vec![Step::new("approve".into(), StepKind::Signal), offer, decide];
    Definition::new("approval".into(), 1, steps.into())
}

pub async fn define(conn: &mut PgConnection, definition: &Definition) {
    sqlx::query("insert into amends.definition (fingerprint, name, version, definition) values ($1, $2, $3, $4)")
        .bind(definition.fingerprint())
        .bind(&*definition.name)
        .bind(definition.version as i32)
        .bind(serde_json::to_value(definition).unwrap())
        .execute(conn)
        .await
        .unwrap();
}

pub async fn start(
    conn: &mut PgConnection,
    name: &str,
    key: Option<&str>,
    input: &Value,
    version: Option<i32>,
) -> Result<SagaId, sqlx::Error> {
    let id: Uuid = sqlx::query_scalar("select amends.start_saga($1, $2, $3, $4)")
        .bind(name)
        .bind(key)
        .bind(input)
        .bind(version)
        .fetch_one(conn)
        .await?;
    Ok(SagaId(id))
}

pub async fn signal(
    conn: &mut PgConnection,
    saga: SagaId,
    step: &str,
    payload: Value,
    id: Uuid,
) -> Result<(), sqlx::Error> {
    sqlx::query("select amends.signal($1, $2, $3, $4)")
        .bind(saga.0)
        .bind(step)
        .bind(payload)
        .bind(id)
        .execute(conn)
        .await
        .map(drop)
}

pub async fn cancel(conn: &mut PgConnection, saga: SagaId, id: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query("select amends.cancel_saga($1, $2, $3)")
        .bind(saga.0)
        .bind("the \"customer\" changed \\ her mind")
        .bind(id)
        .execute(conn)
        .await
        .map(drop)
}

pub fn code<T: std::fmt::Debug>(result: Result<T, sqlx::Error>) -> String {
    result.unwrap_err().as_database_error().unwrap().code().unwrap().into_owned()
}

pub fn done(value: &Value) -> Answer {
    Answer::Done(Json::encode(value).unwrap())
}

pub fn nested(levels: usize) -> Value {
    (0..levels).fold(json!(1), |inner, level| if level % 2 == 0 { json!([inner]) } else { json!({ "a": inner }) })
}
