//! The ledger: a charge is taken at most once per key, and never after it was refunded.

use shop::api::Charge;
use sqlx::PgPool;

/// What became of a charge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The money was taken, by this request or an earlier one with its key.
    Charged { cents: i64 },
    /// It was not, and will not be under this key.
    Refused { code: String },
    /// It was given back, or the refund came first; either way this key is used up.
    Undone,
}

/// Takes money off an account, or says why not; the same key always gets the same answer.
pub(crate) async fn charge(pool: &PgPool, key: &str, charge: &Charge) -> sqlx::Result<Verdict> {
    let mut tx = pool.begin().await?;
    // The key's row is the lock: a second request with the same key waits here until the first has committed.
    let is_new = sqlx::query(
        "insert into charge (key, reference, account, cents, status) values ($1, $2, $3, $4, 'charged')
         on conflict (key) do nothing",
    )
    .bind(key)
    .bind(charge.reference)
    .bind(&charge.account)
    .bind(charge.cents)
    .execute(&mut *tx)
    .await?
    .rows_affected()
        == 1;
    if !is_new {
        let (status, cents, code): (String, Option<i64>, Option<String>) =
            sqlx::query_as("update charge set asked = asked + 1 where key = $1 returning status, cents, code")
                .bind(key)
                .fetch_one(&mut *tx)
                .await?;
        tx.commit().await?;
        return Ok(match status.as_str() {
            "charged" => Verdict::Charged { cents: cents.unwrap_or_default() },
            "refused" => Verdict::Refused { code: code.unwrap_or_default() },
            _ => Verdict::Undone,
        });
    }
    let refusal = if is_declined(&charge.card) {
        Some("card_declined")
    } else {
        let paid = sqlx::query("update account set cents = cents - $2 where id = $1 and cents >= $2")
            .bind(&charge.account)
            .bind(charge.cents)
            .execute(&mut *tx)
            .await?;
        (paid.rows_affected() == 0).then_some("insufficient_funds")
    };
    if let Some(code) = refusal {
        sqlx::query("update charge set status = 'refused', code = $2 where key = $1")
            .bind(key)
            .bind(code)
            .execute(&mut *tx)
            .await?;
    }
    tx.commit().await?;
    Ok(match refusal {
        None => Verdict::Charged { cents: charge.cents },
        Some(code) => Verdict::Refused { code: code.to_owned() },
    })
}

/// Gives the money of a charge back. Where there is no charge it leaves a tombstone, so that one which is still on
/// its way finds its key used up.
pub(crate) async fn refund(pool: &PgPool, key: &str) -> sqlx::Result<()> {
    let mut tx = pool.begin().await?;
    sqlx::query("insert into charge (key, status) values ($1, 'void') on conflict (key) do nothing")
        .bind(key)
        .execute(&mut *tx)
        .await?;
    sqlx::query(
        "with undone as (
             update charge set status = 'refunded' where key = $1 and status = 'charged' returning account, cents
         )
         update account set cents = account.cents + undone.cents from undone where account.id = undone.account",
    )
    .bind(key)
    .execute(&mut *tx)
    .await?;
    tx.commit().await
}

/// One card in ten is declined, always the same ones.
fn is_declined(card: &str) -> bool {
    card.ends_with('0')
}

#[cfg(test)]
mod tests {
    use amends_postgres::testing::TestDatabase;
    use sqlx::Executor;

    use super::*;

    #[tokio::test]
    async fn a_charge_that_comes_after_its_refund_takes_no_money() {
        let database = TestDatabase::create_empty().await;
        let pool = database.pool();
        pool.execute(include_str!("schema.sql")).await.unwrap();
        pool.execute("insert into account (id, cents) values ('anna', 100)").await.unwrap();
        let late = Charge { reference: uuid::Uuid::nil(), account: "anna".into(), cents: 30, card: "1".into() };

        refund(pool, "key").await.unwrap();
        assert_eq!(charge(pool, "key", &late).await.unwrap(), Verdict::Undone);
        assert_eq!(charge(pool, "another", &late).await.unwrap(), Verdict::Charged { cents: 30 });
        refund(pool, "another").await.unwrap();
        assert_eq!(charge(pool, "another", &late).await.unwrap(), Verdict::Undone);

        let cents: i64 = sqlx::query_scalar("select cents from account").fetch_one(pool).await.unwrap();
        assert_eq!(cents, 100);
    }
}
