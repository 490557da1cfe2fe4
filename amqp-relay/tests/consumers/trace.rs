//! One trace shows the message, its consumer, and what that publishes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amends::Message;
use amends_postgres::Outbox;
use amends_relay::{HandlerError, Incoming};
use lapin::types::{AMQPValue, FieldTable};
use opentelemetry::trace::{SpanKind, TracerProvider as _};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, Span, SpanData, SpanProcessor};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use sqlx::types::Json;
use tracing_subscriber::layer::SubscriberExt;

use crate::support::until;
use crate::{Consuming, Sent, consumer, world};

#[derive(Serialize, Deserialize, Message)]
#[message(name = "thing.happened")]
struct Happened;

#[derive(Serialize, Deserialize, Message)]
#[message(name = "thing.followed")]
struct Followed;

/// Keeps the spans that have ended.
#[derive(Debug, Clone, Default)]
struct Kept(Arc<Mutex<Vec<SpanData>>>);

impl SpanProcessor for Kept {
    fn on_start(&self, _: &mut Span, _: &opentelemetry::Context) {}

    fn on_end(&self, span: SpanData) {
        self.0.lock().unwrap().push(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

async fn follow(tx: &mut PgConnection, _: Happened, _: &Incoming) -> Result<(), HandlerError> {
    Outbox::publish(tx, &Followed).await?;
    Ok(())
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

#[tokio::test(flavor = "multi_thread")]
async fn the_trace_of_a_message_goes_on_in_its_consumer_and_in_what_that_publishes() {
    let kept = Kept::default();
    let provider = SdkTracerProvider::builder().with_span_processor(kept.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer)).unwrap();
    let mut world = world().await;
    let queue = world.queue("ledger", &["#"]);
    let consuming = Consuming::start(consumer(&world, &queue).on(follow));
    world.until_consumed(&queue.name).await;

    let mut headers = FieldTable::default();
    let parent = format!("00-{TRACE}-b7ad6b7169203331-01");
    headers.insert("traceparent".into(), AMQPValue::LongString(parent.into()));
    Sent { id: Some("17"), headers, ..Sent::text("null") }.to(&world).await;
    until(world.pool(), "select exists (select from amends.outbox)").await;
    consuming.stop().await;

    let spans = kept.0.lock().unwrap().clone();
    let span = spans.iter().find(|span| span.name.starts_with("process ")).expect("a span of the consumer");
    assert_eq!(span.name, format!("process {}", queue.name));
    assert_eq!(
        (span.span_kind.clone(), span.parent_span_id.to_string()),
        (SpanKind::Consumer, "b7ad6b7169203331".into())
    );
    assert_eq!(span.span_context.trace_id().to_string(), TRACE);
    let attributes: HashMap<&str, String> =
        span.attributes.iter().map(|it| (it.key.as_str(), it.value.to_string())).collect();
    for (name, value) in [
        ("messaging.system", "rabbitmq"),
        ("messaging.operation.type", "process"),
        ("messaging.destination.name", queue.name.as_str()),
        ("messaging.consumer.group.name", "ledger"),
        ("messaging.message.id", "17"),
        ("messaging.message.body.size", "4"),
        ("messaging.rabbitmq.destination.routing_key", "t"),
    ] {
        assert_eq!(attributes.get(name).map(String::as_str), Some(value), "{name}");
    }
    let Json(headers): Json<HashMap<String, String>> =
        sqlx::query_scalar("select headers from amends.outbox").fetch_one(world.pool()).await.unwrap();
    // The parent of whoever hears of it is the span in which the handler made it, a child of the consumer's.
    let made =
        spans.iter().find(|made| headers["traceparent"].contains(&made.span_context.span_id().to_string())).unwrap();
    assert_eq!(made.parent_span_id, span.span_context.span_id());
    assert!(headers["traceparent"].starts_with(&format!("00-{TRACE}-")));
    world.clean_up().await;
}
