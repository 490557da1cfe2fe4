//! A saga and its tests: of one method, of one run, of every run. `cargo test -p amends-examples --example testing`; the
//! guide is `docs/TESTING.md`.
#![allow(clippy::unused_async, reason = "real steps await other services")]

use amends::{Call, Error, MemoryStore, Sagas, StepResult, saga};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

#[derive(Serialize, Deserialize)]
struct Gift {
    to: String,
    cents: i64,
}

/// Takes money from a card and sends a gift; `B` is the bank, or a fake of it.
struct SendGift<B> {
    bank: B,
}

trait Bank: Send + Sync + 'static {
    fn charge(&self, key: &str, cents: i64) -> StepResult<()>;
    fn refund(&self, key: &str) -> StepResult<()>;
}

#[saga(name = "send-gift", version = 1, input = Gift)]
impl<B: Bank> SendGift<B> {
    #[step(call, compensate = refund)]
    async fn charge(&self, call: &Call, input: &Gift) -> StepResult<i64> {
        self.bank.charge(call.step_key(), input.cents)?;
        Ok(input.cents)
    }

    #[step(call, compensate = none)]
    async fn wrap(&self, _call: &Call, input: &Gift, charge: &i64) -> StepResult<String> {
        Ok(format!("a gift of {charge} for {}", input.to))
    }

    /// The charge has happened, or perhaps never will, or is still on its way.
    #[compensate]
    async fn refund(&self, call: &Call, charge: Option<&i64>) -> StepResult<()> {
        let _ = charge;
        self.bank.refund(call.step_key())
    }
}

/// A bank that is always there.
struct Generous;

impl Bank for Generous {
    fn charge(&self, key: &str, cents: i64) -> StepResult<()> {
        println!("  {cents} under {key}");
        Ok(())
    }

    fn refund(&self, _key: &str) -> StepResult<()> {
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let sagas = Sagas::builder(MemoryStore::new()).register(SendGift { bank: Generous }).build()?;
    let give = async {
        let gift = Gift { to: "Ann".into(), cents: 700 };
        let saga = sagas.start_now(SendGift::<Generous>::unkeyed(), &gift).await?.id();
        println!("{:?}", sagas.outcome::<SendGift<Generous>>(saga).await?);
        Ok(())
    };
    tokio::select! {
        given = give => given,
        ended = sagas.run(CancellationToken::new()) => ended, // the worker
    }
}

#[cfg(test)]
#[allow(clippy::needless_raw_string_hashes, reason = "expect-test writes them")]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use amends::testing::{Explorer, Handle, Harness, World, explore};
    use expect_test::expect;

    use super::*;

    fn gift() -> Gift {
        Gift { to: "Ann".into(), cents: 700 }
    }

    #[tokio::test]
    async fn a_step_is_a_method() {
        let wrapped = SendGift { bank: Generous }.wrap(&Call::test("key"), &gift(), &700).await;
        assert_eq!(wrapped.ok().as_deref(), Some("a gift of 700 for Ann"));
    }

    #[tokio::test]
    async fn the_money_is_given_back_if_the_gift_cannot_be_wrapped() {
        let saga = SendGift { bank: Generous };
        let run = Harness::new(saga).fail_at(SendGift::<Generous>::WRAP).repeat_every_step().run(&gift()).await;
        expect![[r#"
            charge: 700
            wrap: rejected, failed_by_test
            charge: undone
            compensated
        "#]]
        .assert_eq(&run.log());
    }

    /// A fake that keeps what a real bank would: what was charged under which key, and which keys were refunded.
    #[derive(Clone, Default, Hash)]
    struct Books {
        charged: BTreeMap<String, i64>,
        refunded: BTreeSet<String>,
    }

    /// Whether the fake remembers refunds of charges that it has not seen.
    struct Fake(Handle<Books>, bool);

    impl Bank for Fake {
        fn charge(&self, key: &str, cents: i64) -> StepResult<()> {
            self.0.with(|books| {
                if !books.refunded.contains(key) {
                    books.charged.insert(key.to_owned(), cents);
                }
            });
            Ok(())
        }

        fn refund(&self, key: &str) -> StepResult<()> {
            self.0.with(|books| {
                let was_charged = books.charged.remove(key).is_some();
                if was_charged || self.1 {
                    books.refunded.insert(key.to_owned());
                }
            });
            Ok(())
        }
    }

    fn gifts(remembers: bool) -> Explorer<World<Books, ()>> {
        explore(Books::default())
            .saga(move |books| SendGift { bank: Fake(books.clone(), remembers) }, &gift())
            .crashes(2)
            .zombies(1)
            .transient(1)
            .unknown(1)
            .when_completed("it is paid once", |it| it.world.charged.values().sum::<i64>() == 700)
            .when_compensated("nothing is paid", |it| it.world.charged.is_empty())
            .never_parked()
    }

    #[test]
    fn whatever_goes_wrong_it_is_paid_once_or_not_at_all() {
        let report = gifts(true).check();
        assert!(report.is_exhaustive());
    }

    #[test]
    fn a_bank_that_forgets_refunds_takes_money_for_nothing() {
        let violation = gifts(false).run().expect_err("a late charge is not stopped");
        expect![[r#"
            saga `send-gift`: when compensated, nothing is paid: that does not hold

               1  `charge` times out for good; its request is still on its way
               2  `refund` (undoes `charge`) runs: Ok
               3  the saga is compensated
               4  what nobody waits for any more arrives:
               5  `charge` runs: Ok 700

            hint: a request may arrive after it was undone: the compensation must leave a mark under `call.step_key()` that makes the late request do nothing
            hint: a compensation may run although its step never took effect: it must undo only what is there, found by `call.step_key()`
            to run this schedule alone: AMENDS_REPLAY=9.0.0.0 cargo test …"#]].assert_eq(&violation.to_string());
    }
}
