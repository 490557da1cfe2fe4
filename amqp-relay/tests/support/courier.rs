//! A saga that asks a courier to ship, and the courier, who is another service.

use std::borrow::Cow;
use std::time::Duration;

use amends::store::{NewSaga, Started, Store};
use amends::{
    Begin, Capability, Compensation, Data, Definition, Json, Message, OutboxMessage, RetryPolicy, SagaId, Sagas, Step,
    StepError, StepFuture, StepKind, StepResult, Steps, WorkerOptions, reject,
};
use amends_postgres::{Barrier, PgStore, StepTx};
use amends_relay::{Consumer, Handler, HandlerError, Incoming, QueueTopology};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, PgPool};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::World;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Order {
    pub id: i64,
    /// The courier takes 30 at most.
    pub kilograms: u32,
    /// It is wanted back once it is under way.
    pub returned: bool,
}

#[derive(Debug, Serialize, Deserialize, Message)]
#[message(name = "parcel.ship")]
pub struct Ship {
    pub order: i64,
    pub kilograms: u32,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize, Message)]
#[message(name = "parcel.shipped")]
pub struct Shipped {
    pub tracking: String,
}

#[derive(Debug, Serialize, Deserialize, Message)]
#[message(name = "parcel.recall")]
pub struct Recall {
    pub order: i64,
}

/// The tables of the shop and of the courier.
pub const TABLES: &str = "
    create table reservation (id bigint primary key);
    create table notice (tracking text not null);
    create table parcel (key text primary key, id bigint not null)";

/// reserve (tx) → ship (request, undone by a request) → notify (tx).
pub fn undoable() -> Definition {
    let recall = Compensation::new("recall".into(), StepKind::Request);
    definition(Step { compensation: Some(recall), ..Step::new("ship".into(), StepKind::Request) })
}

/// As [`undoable`], but there is no way back from `ship`, which is waited for so long.
pub fn pivotal(timeout: Duration) -> Definition {
    definition(Step { pivot: true, timeout, retry: RetryPolicy::ONCE, ..Step::new("ship".into(), StepKind::Request) })
}

fn definition(ship: Step) -> Definition {
    let release = Compensation::new("release".into(), StepKind::Tx);
    let steps = vec![
        Step { compensation: Some(release), ..Step::new("reserve".into(), StepKind::Tx) },
        Step { after: Cow::Borrowed(&[0]), ..ship },
        Step { after: Cow::Borrowed(&[1]), ..Step::new("notify".into(), StepKind::Tx) },
    ];
    Definition::new("delivery".into(), 1, steps.into())
}

pub struct Delivery;

impl Steps<StepTx> for Delivery {
    fn execute<'a>(&'a self, step: usize, capability: Capability<'a, StepTx>, data: Data) -> StepFuture<'a> {
        Box::pin(async move {
            let order: Order = data.input()?;
            let tx = capability.tx().conn();
            if step == 0 {
                sqlx::query("insert into reservation values ($1)").bind(order.id).execute(tx).await?;
            } else if order.returned {
                return Err(reject("not_wanted"));
            } else {
                let shipped: Shipped = data.output(1)?;
                sqlx::query("insert into notice values ($1)").bind(shipped.tracking).execute(tx).await?;
            }
            Ok(Json::null())
        })
    }

    fn compensate<'a>(&'a self, _: usize, capability: Capability<'a, StepTx>, data: Data) -> StepFuture<'a> {
        Box::pin(async move {
            let order: Order = data.input()?;
            let tx = capability.tx().conn();
            sqlx::query("delete from reservation where id = $1").bind(order.id).execute(tx).await?;
            Ok(Json::null())
        })
    }

    fn begin(&self, _: usize, undo: bool, data: Data) -> StepResult<Begin> {
        let Order { id: order, kilograms, .. } = data.input()?;
        let asked =
            if undo { OutboxMessage::new(&Recall { order }) } else { OutboxMessage::new(&Ship { order, kilograms }) };
        Ok(Begin::Message(asked?))
    }

    fn accept(&self, _: usize, answer: &Json) -> StepResult<()> {
        answer.decode::<Shipped>().map(drop).map_err(StepError::Data)
    }
}

/// Does what it is asked to once for a key, undoes only what it did, and answers every time.
pub struct Courier;

#[async_trait]
impl Handler for Courier {
    async fn handle(&self, tx: &mut PgConnection, message: &Incoming) -> Result<(), HandlerError> {
        let Some(work) = message.through(Barrier::new("courier"), tx).await? else { return Ok(()) };
        if work.is_undo() {
            sqlx::query("delete from parcel where key = $1").bind(work.key()).execute(&mut *tx).await?;
            return work.undone(tx).await;
        }
        let Some(ship) = message.read::<Ship>()? else { return work.reject(tx, "unknown", "").await };
        if ship.kilograms > 30 {
            return work.reject(tx, "too_heavy", "30 kg at most").await;
        }
        let insert = "insert into parcel (key, id) values ($1, $2)";
        sqlx::query(insert).bind(work.key()).bind(ship.order).execute(&mut *tx).await?;
        work.reply(tx, &Shipped { tracking: format!("T-{}", ship.order) }).await
    }
}

/// The shop's worker, or the courier, in the background.
pub struct Background {
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Background {
    pub async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}

pub fn courier(pool: &PgPool, queue: &QueueTopology) -> Background {
    let consumer = Consumer::builder(pool.clone(), World::url()).name("courier").queue(queue.clone());
    let consumer = consumer.handler(Courier).build().unwrap();
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    Background { shutdown, task: tokio::spawn(async move { consumer.run(stop).await }) }
}

pub fn shop(pool: &PgPool, definition: &Definition) -> (Sagas<PgStore>, Background) {
    let options = WorkerOptions { poll: Duration::from_millis(20), ..WorkerOptions::default() };
    let sagas = Sagas::builder(PgStore::new(pool.clone()))
        .register_dynamic(definition.clone(), Delivery)
        .worker(options)
        .build()
        .unwrap();
    let shutdown = CancellationToken::new();
    let (worker, stop) = (sagas.clone(), shutdown.clone());
    let task = tokio::spawn(async move { worker.run(stop).await.unwrap() });
    (sagas, Background { shutdown, task })
}

pub async fn start(sagas: &Sagas<PgStore>, definition: &Definition, order: &Order) -> SagaId {
    let started = sagas.store().start(NewSaga::new(definition, Json::encode(order).unwrap()), None).await.unwrap();
    let Started::New(id) = started else { panic!("it has no key") };
    id
}
