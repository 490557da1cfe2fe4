//! The saga: reserve the goods, take the money, ship; or give everything back.

use amends::{Call, StepResult, reject, saga};
use amends_postgres::StepTx;
use serde::{Deserialize, Serialize};
use shop::api::Order;
use shop::events::{OrderCompleted, OrderRefused, OrderShipped, StockReleased, StockReserved};

use crate::payments::{Answer, Pay};

/// Carries out one order. Its fields are what its steps need; its data is the [`Order`].
#[derive(Debug)]
pub(crate) struct PlaceOrder<P> {
    pub(crate) payments: P,
}

/// Money that was taken.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Payment {
    cents: i64,
}

#[saga(name = "place-order", version = 1, input = Order)]
impl<P: Pay> PlaceOrder<P> {
    /// Takes the order in hand. It stands first so that, whatever is refused later, its undoing tells the customer.
    #[step(tx, compensate = refuse)]
    async fn accept(&self, tx: &mut StepTx, input: &Order) -> StepResult<()> {
        sqlx::query("update orders set status = 'accepted' where id = $1").bind(input.id).execute(tx.conn()).await?;
        Ok(())
    }

    /// Sets the goods aside: the rows, the event and the step's record commit or vanish together.
    #[step(tx, compensate = release)]
    async fn reserve(&self, tx: &mut StepTx, input: &Order) -> StepResult<()> {
        // The row's lock is held until the commit, so versions and events of one sku are in commit order.
        let version = sqlx::query_scalar(
            "update stock set available = available - $2, version = version + 1
             where sku = $1 and available >= $2 returning version",
        )
        .bind(&input.sku)
        .bind(input.qty)
        .fetch_optional(tx.conn())
        .await?
        .ok_or_else(|| reject("out_of_stock"))?;
        sqlx::query("insert into reservation (order_id, sku, qty) values ($1, $2, $3)")
            .bind(input.id)
            .bind(&input.sku)
            .bind(input.qty)
            .execute(tx.conn())
            .await?;
        tx.publish(&StockReserved { sku: input.sku.clone(), version, qty: input.qty })
    }

    /// Takes the money, in another service. It may be asked more than once, always under the same key.
    #[step(call, compensate = refund, retry(attempts = 12, backoff = "100ms..2s"), timeout = "2s")]
    async fn charge(&self, call: &Call, input: &Order) -> StepResult<Payment> {
        match self.payments.charge(call, input).await? {
            Answer::Charged { cents } => Ok(Payment { cents }),
            Answer::Refused { code } => Err(reject(code)),
        }
    }

    /// Past this step there is no way back.
    #[step(tx, pivot)]
    async fn ship(&self, tx: &mut StepTx, input: &Order) -> StepResult<()> {
        sqlx::query("insert into shipment (order_id) values ($1)").bind(input.id).execute(tx.conn()).await?;
        let version = set_status(tx, input, "shipped").await?;
        tx.publish(&OrderShipped { order: input.id, version, sku: input.sku.clone(), qty: input.qty })
    }

    /// Tells the customer.
    #[step(tx)]
    async fn notify(&self, tx: &mut StepTx, input: &Order) -> StepResult<()> {
        let version = set_status(tx, input, "completed").await?;
        tx.publish(&OrderCompleted { order: input.id, version })
    }

    /// Undoes `charge`, which has perhaps happened (`None`: nobody knows), perhaps never will, or is still on its way.
    #[compensate(retry(attempts = 60, backoff = "100ms..2s"), timeout = "5s")]
    async fn refund(&self, call: &Call, charge: Option<&Payment>) -> StepResult<()> {
        tracing::info!(saga = %call.saga(), cents = charge.map(|payment| payment.cents), "refund");
        self.payments.refund(call).await
    }

    /// Undoes `reserve`: the goods are for sale again.
    #[compensate]
    async fn release(&self, tx: &mut StepTx, input: &Order) -> StepResult<()> {
        sqlx::query("update reservation set status = 'released' where order_id = $1")
            .bind(input.id)
            .execute(tx.conn())
            .await?;
        let version = sqlx::query_scalar(
            "update stock set available = available + $2, version = version + 1 where sku = $1 returning version",
        )
        .bind(&input.sku)
        .bind(input.qty)
        .fetch_one(tx.conn())
        .await?;
        tx.publish(&StockReleased { sku: input.sku.clone(), version, qty: input.qty })
    }

    /// Undoes `accept`: the last thing that happens to an order that comes to nothing.
    #[compensate]
    async fn refuse(&self, tx: &mut StepTx, input: &Order) -> StepResult<()> {
        let version = set_status(tx, input, "refused").await?;
        tx.publish(&OrderRefused { order: input.id, version })
    }
}

/// Moves the order on, and gives the version that its event carries.
async fn set_status(tx: &mut StepTx, order: &Order, status: &str) -> StepResult<i64> {
    let version =
        sqlx::query_scalar("update orders set status = $2, version = version + 1 where id = $1 returning version")
            .bind(order.id)
            .bind(status)
            .fetch_one(tx.conn())
            .await?;
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payments::Payments;

    /// What is on disk depends on this text: a change of it needs a new version of the saga.
    #[test]
    fn the_definition_is_what_sagas_on_disk_rely_on() {
        let expected = "\
saga place-order v1
  tx accept, undone by tx refuse
  tx reserve after accept, undone by tx release
  call charge after reserve, undone by call refund
  tx ship after charge, pivot
  tx notify after ship";
        assert_eq!(PlaceOrder::<Payments>::DEFINITION.to_string(), expected);
    }
}
