//! What the three databases say at the end, read once; the audit only compares.

use std::collections::{BTreeMap, HashMap};

use shop::service::Failure;
use sqlx::FromRow;
use uuid::Uuid;

use crate::world::World;

/// Every ledger of the shop.
#[derive(Debug, Default)]
pub(crate) struct Ledgers {
    /// Of `orders`.
    pub(crate) orders: HashMap<Uuid, OrderRow>,
    pub(crate) sagas: Vec<SagaRow>,
    pub(crate) stock: Vec<StockRow>,
    pub(crate) outbox: HashMap<Uuid, OutboxRow>,
    pub(crate) held: Vec<Uuid>,
    /// Orders that were undone after the customer had asked for it.
    pub(crate) cancelled: Vec<String>,
    /// Sagas whose journals do not count 1, 2, 3 …
    pub(crate) torn_journals: Vec<Uuid>,
    /// Of `payments`.
    pub(crate) charges: Vec<ChargeRow>,
    pub(crate) accounts: BTreeMap<String, i64>,
    /// Of `warehouse`.
    pub(crate) received: Vec<ReceivedRow>,
    pub(crate) disorder: Vec<DisorderRow>,
    pub(crate) parcels: Vec<ParcelRow>,
    /// What the warehouse has set aside, as far as it has heard.
    pub(crate) set_aside: BTreeMap<String, i64>,
    pub(crate) last_heard: HashMap<String, i64>,
}

#[derive(Debug, Clone, FromRow)]
pub(crate) struct OrderRow {
    pub(crate) id: Uuid,
    pub(crate) account: String,
    pub(crate) sku: String,
    pub(crate) qty: i32,
    pub(crate) cents: i64,
    pub(crate) status: String,
    pub(crate) version: i64,
    pub(crate) reservation: Option<String>,
    pub(crate) is_shipped: bool,
}

#[derive(Debug, Clone, FromRow)]
pub(crate) struct SagaRow {
    pub(crate) id: Uuid,
    pub(crate) key: String,
    pub(crate) status: String,
    /// Who, if anybody, works on it, and the last thing that happened, for people.
    pub(crate) detail: String,
}

#[derive(Debug, Clone, FromRow)]
pub(crate) struct StockRow {
    pub(crate) sku: String,
    pub(crate) available: i32,
    pub(crate) version: i64,
}

#[derive(Debug, Clone, FromRow)]
pub(crate) struct OutboxRow {
    pub(crate) id: Uuid,
    pub(crate) key: Option<String>,
    pub(crate) name: String,
}

#[derive(Debug, Clone, FromRow)]
pub(crate) struct ChargeRow {
    pub(crate) key: String,
    pub(crate) reference: Option<Uuid>,
    pub(crate) account: Option<String>,
    pub(crate) cents: Option<i64>,
    pub(crate) status: String,
    pub(crate) asked: i32,
}

#[derive(Debug, Clone, FromRow)]
pub(crate) struct ReceivedRow {
    pub(crate) message_id: Uuid,
}

#[derive(Debug, Clone, FromRow)]
pub(crate) struct DisorderRow {
    pub(crate) message_id: Uuid,
    pub(crate) key: String,
    pub(crate) version: i64,
    pub(crate) expected: i64,
}

#[derive(Debug, Clone, FromRow)]
pub(crate) struct ParcelRow {
    pub(crate) order_id: Uuid,
    pub(crate) sku: String,
    pub(crate) qty: i32,
}

impl Ledgers {
    pub(crate) async fn read(world: &World) -> Result<Self, Failure> {
        let mut ledgers = Self::default();
        ledgers.read_orders(world).await?;
        ledgers.read_engine(world).await?;
        ledgers.read_payments(world).await?;
        ledgers.read_warehouse(world).await?;

        Ok(ledgers)
    }

    async fn read_orders(&mut self, world: &World) -> sqlx::Result<()> {
        let orders: Vec<OrderRow> = sqlx::query_as(
            "select o.id, o.account, o.sku, o.qty, o.cents, o.status, o.version, r.status as reservation,
                    s.order_id is not null as is_shipped
             from orders o left join reservation r on r.order_id = o.id left join shipment s on s.order_id = o.id",
        )
        .fetch_all(&world.orders)
        .await?;
        self.orders = orders.into_iter().map(|order| (order.id, order)).collect();
        self.stock = sqlx::query_as("select sku, available, version from stock").fetch_all(&world.orders).await?;
        Ok(())
    }

    async fn read_engine(&mut self, world: &World) -> sqlx::Result<()> {
        self.sagas = sqlx::query_as(
            "select s.id, coalesce(s.key, '') as key, s.status,
                    format('%s, owner %s, due %s, last %s', s.status, coalesce(s.owner::text, 'nobody'),
                        coalesce(s.wake_at::text, 'never'), coalesce(left(j.events::text, 200), 'nothing')) as detail
             from amends.saga s
             left join lateral (select events from amends.journal where saga_id = s.id order by seq desc limit 1) j on true",
        )
        .fetch_all(&world.orders)
        .await?;
        let outbox: Vec<OutboxRow> =
            sqlx::query_as("select id, key, name from amends.outbox").fetch_all(&world.orders).await?;
        self.outbox = outbox.into_iter().map(|row| (row.id, row)).collect();
        self.held = sqlx::query_scalar("select id from amends.held_message").fetch_all(&world.orders).await?;
        self.cancelled = sqlx::query_scalar(
            "select distinct s.key from amends.journal j join amends.saga s on s.id = j.saga_id
             where s.status = 'compensated' and j.events::text like '%\"cancelled\":%'",
        )
        .fetch_all(&world.orders)
        .await?;
        self.torn_journals = sqlx::query_scalar(
            "select saga_id from amends.journal group by saga_id having count(*) <> max(seq) or min(seq) <> 1",
        )
        .fetch_all(&world.orders)
        .await?;
        Ok(())
    }

    async fn read_payments(&mut self, world: &World) -> sqlx::Result<()> {
        self.charges = sqlx::query_as("select key, reference, account, cents, status, asked from charge")
            .fetch_all(&world.payments)
            .await?;
        let accounts: Vec<(String, i64)> =
            sqlx::query_as("select id, cents from account").fetch_all(&world.payments).await?;
        self.accounts = accounts.into_iter().collect();
        Ok(())
    }

    async fn read_warehouse(&mut self, world: &World) -> sqlx::Result<()> {
        let pool = &world.warehouse;
        self.received = sqlx::query_as("select message_id from received").fetch_all(pool).await?;
        self.disorder = sqlx::query_as("select message_id, key, version, expected from disorder order by key, version")
            .fetch_all(pool)
            .await?;
        self.parcels = sqlx::query_as("select order_id, sku, qty from parcel").fetch_all(pool).await?;
        let set_aside: Vec<(String, i64)> = sqlx::query_as("select sku, qty from set_aside").fetch_all(pool).await?;
        self.set_aside = set_aside.into_iter().collect();
        let last: Vec<(String, i64)> = sqlx::query_as("select key, version from last_heard").fetch_all(pool).await?;
        self.last_heard = last.into_iter().collect();
        Ok(())
    }
}
