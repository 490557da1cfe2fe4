//! Sagas explored on real PostgreSQL: its SQL and its constraints, and nothing remains.
#![allow(clippy::unwrap_used, missing_docs)]
#![allow(clippy::needless_raw_string_hashes, reason = "expect-test writes them")]

use std::collections::BTreeMap;
use std::time::Instant;

use amends::testing::{Explorer, Handle, Harness, When};
use amends::{Call, Message, Outcome, StepResult, reject, saga};
use amends_postgres::StepTx;
use amends_postgres::testing::{Sandbox, TestDatabase, sql, world};
use expect_test::expect;
use serde::{Deserialize, Serialize};
use sqlx::Executor;

#[derive(Debug, Serialize, Deserialize)]
struct Order {
    sku: String,
    quantity: i32,
}

#[derive(Serialize, Deserialize, Message)]
#[message(name = "goods.reserved")]
struct GoodsReserved {
    reservation: i32,
}

/// What was charged under which key; a refund stays as zero, so that a late charge does nothing.
type Charges = BTreeMap<String, i32>;

struct PlaceOrder {
    charges: Handle<Charges>,
    /// The mistake that can be made: to give back as much as was ordered instead of what was reserved.
    forgets_reservation: bool,
}

#[saga(name = "place-order", version = 1, input = Order)]
impl PlaceOrder {
    #[step(tx, compensate = release)]
    async fn reserve(&self, tx: &mut StepTx, input: &Order) -> StepResult<i32> {
        sqlx::query("update stock set free = free - $2 where sku = $1 and free >= $2 returning free")
            .bind(&input.sku)
            .bind(input.quantity)
            .fetch_optional(tx.conn())
            .await?
            .ok_or_else(|| reject("out_of_stock"))?;
        let id = sqlx::query_scalar("insert into reservation (sku, quantity) values ($1, $2) returning id")
            .bind(&input.sku)
            .bind(input.quantity)
            .fetch_one(tx.conn())
            .await?;
        tx.publish(&GoodsReserved { reservation: id })?;
        Ok(id)
    }

    #[step(call, compensate = refund)]
    async fn charge(&self, call: &Call, input: &Order) -> StepResult<()> {
        self.charges.with(|charges| *charges.entry(call.step_key().to_owned()).or_insert(input.quantity));
        Ok(())
    }

    #[step(tx, pivot)]
    async fn ship(&self, tx: &mut StepTx, reserve: &i32) -> StepResult<()> {
        sqlx::query("insert into shipment (reservation) values ($1)").bind(reserve).execute(tx.conn()).await?;
        Ok(())
    }

    #[compensate]
    async fn refund(&self, call: &Call) -> StepResult<()> {
        self.charges.with(|charges| charges.insert(call.step_key().to_owned(), 0));
        Ok(())
    }

    #[compensate]
    async fn release(&self, tx: &mut StepTx, input: &Order, reserve: &i32) -> StepResult<()> {
        let deleted: Option<i32> = sqlx::query_scalar("delete from reservation where id = $1 returning quantity")
            .bind(reserve)
            .fetch_optional(tx.conn())
            .await?;
        let quantity = if self.forgets_reservation { 1 } else { deleted.unwrap_or_default() };
        sqlx::query("update stock set free = free + $2 where sku = $1")
            .bind(&input.sku)
            .bind(quantity)
            .execute(tx.conn())
            .await?;
        Ok(())
    }
}

const SCHEMA: &str = "
    create table stock (sku text primary key, free integer not null check (free >= 0));
    create table reservation (id integer generated always as identity primary key, sku text not null references stock,
        quantity integer not null);
    create table shipment (reservation integer primary key references reservation deferrable initially deferred);
    insert into stock values ('pen', 5)";

async fn database() -> TestDatabase {
    let database = TestDatabase::create().await;
    database.pool().execute(SCHEMA).await.unwrap();
    database
}

async fn sandbox(database: &TestDatabase) -> Sandbox<Charges> {
    Sandbox::open(database.pool(), Charges::default()).await.unwrap().tables(&["stock", "reservation", "shipment"])
}

fn order() -> Order {
    Order { sku: "pen".into(), quantity: 2 }
}

fn explorer(sandbox: Sandbox<Charges>, forgets_reservation: bool) -> Explorer<Sandbox<Charges>> {
    let charges = sandbox.world();
    Explorer::new(sandbox)
        .saga_made(move || PlaceOrder { charges: charges.clone(), forgets_reservation }, &order())
        .rule(When::Completed, "it is paid", world(|charges: &Charges| charges.values().sum::<i32>() == 2))
        .rule(When::Compensated, "nothing is paid", world(|charges: &Charges| charges.values().sum::<i32>() == 0))
        .rule(When::Compensated, "all are free", sql("select free = 5 from stock"))
        .rule(
            When::Always,
            "no pen is lost",
            sql("select free + coalesce((select sum(quantity) from reservation), 0) = 5 from stock"),
        )
        .never_parked()
}

#[tokio::test]
async fn a_correct_saga_holds_in_every_schedule_and_leaves_nothing() {
    let database = database().await;
    let began = Instant::now();

    let report = explorer(sandbox(&database).await, false)
        .crashes(1)
        .zombies(1)
        .unknown(1)
        .explore()
        .await
        .unwrap_or_else(|violation| panic!("{violation}"));

    println!("{report}, in {:?}", began.elapsed());
    assert!(report.is_exhaustive());
    let rows: (i64, i64, i64) = sqlx::query_as(
        "select (select count(*) from reservation), (select count(*) from shipment), (select count(*) from amends.saga)",
    )
    .fetch_one(database.pool())
    .await
    .unwrap();
    assert_eq!(rows, (0, 0, 0));
}

#[tokio::test]
async fn without_the_tables_every_schedule_is_run() {
    let database = database().await;
    let sandbox = Sandbox::open(database.pool(), Charges::default()).await.unwrap();
    let began = Instant::now();

    let report = explorer(sandbox, false).crashes(1).explore().await.unwrap_or_else(|violation| panic!("{violation}"));

    println!("{report}, in {:?}", began.elapsed());
    assert_eq!(report.schedules(), u128::from(report.runs()));
}

#[tokio::test]
async fn a_mistake_in_sql_is_found() {
    let database = database().await;

    let violation = explorer(sandbox(&database).await, true).crashes(1).explore().await.unwrap_err();

    expect![[r#"
        saga `place-order`: always, no pen is lost: that does not hold

           1  `reserve` runs: Ok 5
           2  `charge` is refused
           3  `release` (undoes `reserve`) runs: Ok
           4  the saga is compensated

        hint: a compensation may run on another worker than its step: it knows what is recorded, and what it finds by `call.step_key()`
        to run this schedule alone: AMENDS_REPLAY=0.1.0 cargo test …"#]].assert_eq(&violation.to_string());
}

/// Ships what was never reserved.
struct ShipsNothing;

#[saga(name = "ships-nothing", version = 1, input = i32)]
impl ShipsNothing {
    #[step(tx, pivot)]
    async fn ship(&self, tx: &mut StepTx, input: &i32) -> StepResult<()> {
        sqlx::query("insert into shipment (reservation) values ($1)").bind(input).execute(tx.conn()).await?;
        Ok(())
    }
}

#[tokio::test]
async fn a_deferred_constraint_stops_a_step_where_it_would_commit() {
    let database = database().await;

    let run = Harness::on(sandbox(&database).await, ShipsNothing).retry_at(ShipsNothing::SHIP).run(&7).await;

    assert_eq!(run.outcome(), Some(Outcome::Compensated));
    assert!(run.log().contains("violates foreign key constraint"), "{}", run.log());
}
