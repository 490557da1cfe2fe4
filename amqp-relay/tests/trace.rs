//! One trace shows the caller, each step of the saga, its message and whoever handles it.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::time::Duration;

use amends::{Call, Message, Sagas, StepResult, WorkerOptions, saga};
use amends_postgres::{Outbox, PgStore, StepTx};
use amends_relay::{Consumer, Handler, HandlerError, Incoming};
use async_trait::async_trait;
use opentelemetry::trace::{SpanKind, TracerProvider};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use support::{World, until};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use tracing_subscriber::layer::SubscriberExt;

#[derive(Serialize, Deserialize, Message)]
#[message(name = "stock.reserved")]
struct StockReserved(i64);

#[derive(Serialize, Deserialize, Message)]
#[message(name = "stock.counted")]
struct StockCounted(i64);

struct Reserve;

#[saga(name = "reserve", version = 1, input = i64)]
impl Reserve {
    #[step(tx, compensate = none)]
    async fn reserve(&self, tx: &mut StepTx, input: &i64) -> StepResult<()> {
        tx.publish(&StockReserved(*input))
    }

    #[step(call, pivot)]
    async fn notify(&self, _call: &Call) -> StepResult<()> {
        Ok(())
    }
}

/// Publishes what follows from what it hears.
struct Counter;

#[async_trait]
impl Handler for Counter {
    async fn handle(&self, tx: &mut PgConnection, message: &Incoming) -> Result<(), HandlerError> {
        match message.read::<StockReserved>()? {
            Some(StockReserved(count)) => {
                Outbox::publish(tx, &StockCounted(count)).await?;
            }
            None => {
                sqlx::query("insert into done values (1)").execute(tx).await?;
            }
        }
        Ok(())
    }
}

fn recorded() -> (SdkTracerProvider, InMemorySpanExporter) {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    // All of ours, and not the spans of the clients of database and broker.
    let ours = tracing_subscriber::EnvFilter::new("off,amends=info,amends_relay=info,trace=info");
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(ours).with(layer)).unwrap();
    (provider, exporter)
}

/// Spans of amends' own work in the trace, each with the one that it is a child of.
fn tree(spans: &[SpanData], caller: &SpanData) -> Vec<(String, String)> {
    let of_trace = spans.iter().filter(|span| span.span_context.trace_id() == caller.span_context.trace_id());
    let mut tree: Vec<(String, String)> = of_trace
        .map(|span| {
            let parent = spans.iter().find(|other| other.span_context.span_id() == span.parent_span_id);
            (span.name.to_string(), parent.map_or("nothing".into(), |parent| parent.name.to_string()))
        })
        .collect();
    tree.sort();
    tree
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_shows_the_caller_the_steps_the_message_and_its_consumers() {
    let (provider, exporter) = recorded();
    let mut world = World::create().await;
    sqlx::query("create table done (one int)").execute(world.pool()).await.unwrap();
    let queue = world.queue("counter", &["stock.*"]);
    let relay = world.relay(world.options(vec![queue.clone()]));
    let shutdown = CancellationToken::new();
    let consumer = Consumer::builder(world.pool().clone(), World::url())
        .name("counter")
        .queue(queue.clone())
        .handler(Counter)
        .build()
        .unwrap();
    let sagas = Sagas::builder(PgStore::new(world.pool().clone()))
        .register(Reserve)
        .worker(WorkerOptions { poll: Duration::from_millis(20), ..WorkerOptions::default() })
        .build()
        .unwrap();
    let (worker, stop) = (sagas.clone(), shutdown.clone());
    let running = tokio::spawn(async move { tokio::join!(worker.run(stop.clone()), consumer.run(stop)) });
    world.until_consumed(&queue.name).await;

    async {
        let id = sagas.start_now(Reserve::key("one"), &1).await.unwrap().id();
        sagas.outcome::<Reserve>(id).await.unwrap();
    }
    .instrument(tracing::info_span!("caller"))
    .await;
    until(world.pool(), "select count(*) = 1 from done").await;
    shutdown.cancel();
    running.await.unwrap().0.unwrap();
    relay.stop().await;
    provider.force_flush().unwrap();

    let spans = exporter.get_finished_spans().unwrap();
    let caller = spans.iter().find(|span| span.name == "caller").unwrap();
    let process = format!("process {}", queue.name);
    let expected = [
        ("caller", "nothing"),
        ("create stock.counted", process.as_str()),
        ("create stock.reserved", "saga.step"),
        (process.as_str(), "create stock.counted"),
        (process.as_str(), "create stock.reserved"),
        ("saga.step", "caller"),
        ("saga.step", "caller"),
    ];
    let expected: Vec<_> = expected.map(|(name, parent)| (name.to_owned(), parent.to_owned())).into();
    assert_eq!(tree(&spans, caller), expected);
    let kinds = |name: &str| spans.iter().find(|span| span.name == name).unwrap().span_kind.clone();
    assert_eq!((kinds("create stock.reserved"), kinds(&process)), (SpanKind::Producer, SpanKind::Consumer));
    let header = "select headers ->> 'traceparent' from amends.outbox where name = 'stock.reserved'";
    let header: String = sqlx::query_scalar(header).fetch_one(world.pool()).await.unwrap();
    let created = spans.iter().find(|span| span.name == "create stock.reserved").unwrap();
    assert!(header.contains(&created.span_context.span_id().to_string()), "the message names the span that made it");
    world.clean_up().await;
}
