//! Eight mistakes that users make, each found with the shortest schedule that shows it.
#![allow(clippy::unused_async, reason = "real steps await other services")]
#![allow(clippy::needless_raw_string_hashes, reason = "expect-test writes them")]

use std::collections::BTreeMap;
use std::sync::Mutex;

use amends::testing::{Explorer, Handle, TestTx, Violation, World, explore, explore_with_database};
use amends::{Call, StepError, StepResult, reject, saga};
use expect_test::{Expect, expect};
use serde::{Deserialize, Serialize};

/// The bank of all these examples. A correct one remembers what it did under which key.
#[derive(Clone, Debug, Default, Hash)]
struct Bank {
    balance: i64,
    charged: BTreeMap<String, i64>,
    refunded: BTreeMap<String, i64>,
    events: Vec<String>,
}

type Till = Handle<Bank>;

fn charge_once(bank: &Till, key: &str, cents: i64) {
    bank.with(|bank| {
        if !bank.charged.contains_key(key) && !bank.refunded.contains_key(key) {
            bank.charged.insert(key.to_owned(), cents);
            bank.balance -= cents;
        }
    });
}

fn refund_once(bank: &Till, key: &str) {
    bank.with(|bank| {
        let cents = bank.charged.get(key).copied().unwrap_or_default();
        if bank.refunded.insert(key.to_owned(), cents).is_none() {
            bank.balance += cents;
        }
    });
}

type Exploration = Explorer<World<Bank, ()>>;

fn check(explorer: Exploration, expected: &Expect) {
    expected.assert_eq(&violation(explorer).to_string());
}

fn violation(explorer: Exploration) -> Violation {
    let explorer = explorer
        .crashes(1)
        .unknown(1)
        .transient(1)
        .when_completed("700 are paid", |it| it.world.balance == -700)
        .when_compensated("nothing is paid", |it| it.world.balance == 0);
    *explorer.run().expect_err("there is a mistake in it")
}

struct RefundsTwice(Till);

#[saga(name = "refunds-twice", version = 1, input = i64)]
impl RefundsTwice {
    #[step(call, compensate = refund)]
    async fn charge(&self, call: &Call, input: &i64) -> StepResult<()> {
        charge_once(&self.0, call.step_key(), *input);
        Ok(())
    }

    #[step(call, compensate = none)]
    async fn ship(&self, _call: &Call) -> StepResult<()> {
        Ok(())
    }

    /// The mistake: it gives the money back each time it runs.
    #[compensate]
    async fn refund(&self, call: &Call) -> StepResult<()> {
        self.0.with(|bank| {
            let cents = bank.charged.get(call.step_key()).copied().unwrap_or_default();
            bank.refunded.insert(call.step_key().to_owned(), cents);
            bank.balance += cents;
        });
        Ok(())
    }
}

#[test]
fn a_compensation_that_is_not_idempotent() {
    check(
        explore(Bank::default()).saga(|bank| RefundsTwice(bank.clone()), &700),
        &expect![[r#"
            saga `refunds-twice`: when compensated, nothing is paid: that does not hold

               1  `charge` runs: Ok
               2  `charge` times out for good; it took effect
               3  `refund` (undoes `charge`) runs: Ok
               4  the worker dies; another one takes over
               5  `refund` (undoes `charge`) runs again: Ok
               6  the saga is compensated

            hint: a compensation may run more than once under the same key: the second time it must find nothing to do
            to run this schedule alone: AMENDS_REPLAY=7.0.2.0.0 cargo test …"#]],
    );
}

struct Assumes(Till);

#[saga(name = "assumes", version = 1, input = i64)]
impl Assumes {
    #[step(call, compensate = refund)]
    async fn charge(&self, call: &Call, input: &i64) -> StepResult<()> {
        charge_once(&self.0, call.step_key(), *input);
        Ok(())
    }

    /// The mistake: it gives back what was perhaps never taken.
    #[compensate]
    async fn refund(&self, call: &Call, input: &i64) -> StepResult<()> {
        self.0.with(|bank| {
            if bank.refunded.insert(call.step_key().to_owned(), *input).is_none() {
                bank.balance += input;
            }
        });
        Ok(())
    }
}

#[test]
fn a_compensation_that_assumes_that_its_step_happened() {
    check(
        explore(Bank::default()).saga(|bank| Assumes(bank.clone()), &700),
        &expect![[r#"
        saga `assumes`: when compensated, nothing is paid: that does not hold

           1  `charge` times out for good; it never took effect
           2  `refund` (undoes `charge`) runs: Ok
           3  the saga is compensated

        hint: a compensation may run although its step never took effect: it must undo only what is there, found by `call.step_key()`
        to run this schedule alone: AMENDS_REPLAY=5.0.0 cargo test …"#]],
    );
}

struct Forgets(Till);

#[saga(name = "forgets", version = 1, input = i64)]
impl Forgets {
    /// The mistake: it has an effect, and nothing undoes it.
    #[step(call, compensate = none)]
    async fn charge(&self, call: &Call, input: &i64) -> StepResult<()> {
        charge_once(&self.0, call.step_key(), *input);
        Ok(())
    }

    #[step(call, compensate = none)]
    async fn ship(&self, _call: &Call) -> StepResult<()> {
        Ok(())
    }
}

#[test]
fn a_compensation_that_is_missing() {
    check(
        explore(Bank::default()).saga(|bank| Forgets(bank.clone()), &700),
        &expect![[r#"
            saga `forgets`: when compensated, nothing is paid: that does not hold

               1  `charge` runs: Ok
               2  `charge` times out for good; it took effect
               3  the saga is compensated

            hint: `charge` has run, and nothing undoes it
            to run this schedule alone: AMENDS_REPLAY=7 cargo test …"#]],
    );
}

struct KeepsInMemory {
    bank: Till,
    charged: Mutex<Option<String>>,
}

#[saga(name = "keeps-in-memory", version = 1, input = i64)]
impl KeepsInMemory {
    #[step(call, compensate = refund)]
    async fn charge(&self, call: &Call, input: &i64) -> StepResult<()> {
        charge_once(&self.bank, call.step_key(), *input);
        *self.charged.lock().map_err(|_| StepError::retry("poisoned"))? = Some(call.step_key().to_owned());
        Ok(())
    }

    #[step(call, compensate = none)]
    async fn ship(&self, _call: &Call) -> StepResult<()> {
        Ok(())
    }

    /// The mistake: what it undoes is known to one worker only.
    #[compensate]
    async fn refund(&self, _call: &Call) -> StepResult<()> {
        let charged = self.charged.lock().map_err(|_| StepError::retry("poisoned"))?.clone();
        if let Some(key) = charged {
            refund_once(&self.bank, &key);
        }
        Ok(())
    }
}

#[test]
fn a_compensation_that_uses_data_that_was_not_recorded() {
    let make = |bank: &Till| KeepsInMemory { bank: bank.clone(), charged: Mutex::default() };
    check(
        explore(Bank::default()).saga(make, &700),
        &expect![[r#"
            saga `keeps-in-memory`: when compensated, nothing is paid: that does not hold

               1  `charge` runs: Ok
               2  `charge` times out for good; it took effect
               3  `refund` (undoes `charge`) runs: Ok
               4  the saga is compensated

            hint: a compensation may run on another worker than its step: it knows what is recorded, and what it finds by `call.step_key()`
            to run this schedule alone: AMENDS_REPLAY=7.0.0 cargo test …"#]],
    );
}

struct ChargesWithoutKey(Till);

#[saga(name = "charges-without-key", version = 1, input = i64)]
impl ChargesWithoutKey {
    /// The mistake: the bank cannot tell a second attempt from a second payment.
    #[step(call, pivot)]
    async fn charge(&self, _call: &Call, input: &i64) -> StepResult<()> {
        self.0.with(|bank| bank.balance -= input);
        Ok(())
    }
}

#[test]
fn a_charge_without_the_key() {
    check(
        explore(Bank::default()).saga(|bank| ChargesWithoutKey(bank.clone()), &700),
        &expect![[r#"
        saga `charges-without-key`: when completed, 700 are paid: that does not hold

           1  `charge` runs: Ok
           2  the worker dies; another one takes over
           3  `charge` runs again: Ok
           4  the saga is completed

        hint: after a crash or a lost answer a step runs again under the same `call.idempotency_key()`: its effect must happen once for that key
        to run this schedule alone: AMENDS_REPLAY=0.2.0.0 cargo test …"#]],
    );
}

struct ReadsTheClock(Till);

#[saga(name = "reads-the-clock", version = 1, input = i64)]
impl ReadsTheClock {
    /// The mistake: a second attempt is another payment, since the time is part of its key.
    #[step(call, pivot)]
    async fn charge(&self, call: &Call, input: &i64) -> StepResult<()> {
        charge_once(&self.0, &format!("{} at {}", call.step_key(), chrono::Utc::now()), *input);
        Ok(())
    }
}

#[test]
fn a_step_that_reads_the_wall_clock() {
    check(
        explore(Bank::default()).saga(|bank| ReadsTheClock(bank.clone()), &700),
        &expect![[r#"
            saga `reads-the-clock`: `charge` does not do the same when it runs again in the same moment: it depends on the wall clock, on chance, or on something outside of the world

               1  `charge` runs: Ok

            to run this schedule alone: AMENDS_REPLAY=0 cargo test …"#]],
    );
}

/// The orders of a shop, and what it has told others.
#[derive(Clone, Debug, Default, Hash)]
struct Orders {
    placed: u32,
}

struct PublishesOutside(Till);

#[saga(name = "publishes-outside", version = 1, input = i64)]
impl PublishesOutside {
    /// The mistake: the event is out although the transaction may not commit.
    #[step(tx, pivot)]
    async fn place(&self, tx: &mut TestTx<Orders>) -> StepResult<()> {
        tx.database().placed += 1;
        self.0.with(|broker| broker.events.push("order.placed".to_owned()));
        Ok(())
    }
}

#[test]
fn an_event_that_is_published_outside_the_transaction() {
    let violation = explore_with_database(Bank::default(), Orders::default())
        .saga(|broker| PublishesOutside(broker.clone()), &1)
        .crashes(1)
        .always("an event has an order", |it| it.world.events.len() <= it.database.placed as usize)
        .run()
        .expect_err("there is a mistake in it");
    expect![[r#"
        saga `publishes-outside`: always, an event has an order: that does not hold

           1  `place` runs: Ok
           2  the worker dies before the commit; another one takes over

        hint: a transaction that does not commit must leave nothing: what it publishes goes through `tx.publish`
        to run this schedule alone: AMENDS_REPLAY=4 cargo test …"#]]
    .assert_eq(&violation.to_string());
}

#[derive(Debug, Serialize, Deserialize)]
struct Seat(u32);

/// A plane and a bus to it.
#[derive(Clone, Debug, Default, Hash)]
struct Travel {
    flight: bool,
    bus: bool,
}

struct DependsOnOrder(Handle<Travel>);

#[saga(name = "depends-on-order", version = 1, input = i64)]
impl DependsOnOrder {
    #[step(call, after = start, compensate = cancel_flight)]
    async fn flight(&self, _call: &Call) -> StepResult<Seat> {
        self.0.with(|travel| travel.flight = true);
        Ok(Seat(1))
    }

    #[step(call, after = start, compensate = cancel_bus)]
    async fn bus(&self, _call: &Call) -> StepResult<Seat> {
        self.0.with(|travel| travel.bus = true);
        Ok(Seat(2))
    }

    #[step(call, after = [flight, bus], pivot)]
    async fn pay(&self, _call: &Call) -> StepResult<()> {
        Err(reject("no_money"))
    }

    #[compensate]
    async fn cancel_flight(&self, _call: &Call) -> StepResult<()> {
        self.0.with(|travel| travel.flight = false);
        Ok(())
    }

    /// The mistake: the bus can be cancelled only while there is a flight to go with.
    #[compensate]
    async fn cancel_bus(&self, _call: &Call) -> StepResult<()> {
        self.0.with(|travel| {
            if travel.flight {
                travel.bus = false;
            }
        });
        Ok(())
    }
}

#[test]
fn parallel_compensations_that_depend_on_their_order() {
    let violation = explore(Travel::default())
        .saga(|travel| DependsOnOrder(travel.clone()), &1)
        .when_compensated("nothing is booked", |it| !it.world.flight && !it.world.bus)
        .run()
        .expect_err("there is a mistake in it");
    expect![[r#"
        saga `depends-on-order`: when compensated, nothing is booked: that does not hold

           1  `flight` runs: Ok 1
           2  `bus` runs: Ok 2
           3  `pay` runs: rejected: no_money
           4  `cancel_flight` (undoes `flight`) runs: Ok
           5  `cancel_bus` (undoes `bus`) runs: Ok
           6  the saga is compensated

        hint: parallel branches run, and are undone, in any order
        to run this schedule alone: AMENDS_REPLAY=0.0.0.0.0.0.1.0.0.0 cargo test …"#]]
    .assert_eq(&violation.to_string());
}

/// The same with none of these mistakes.
struct Correct(Till);

#[saga(name = "correct", version = 1, input = i64)]
impl Correct {
    #[step(call, compensate = refund)]
    async fn charge(&self, call: &Call, input: &i64) -> StepResult<()> {
        charge_once(&self.0, call.step_key(), *input);
        Ok(())
    }

    #[step(call, compensate = none)]
    async fn ship(&self, _call: &Call) -> StepResult<()> {
        Ok(())
    }

    #[compensate]
    async fn refund(&self, call: &Call) -> StepResult<()> {
        refund_once(&self.0, call.step_key());
        Ok(())
    }
}

#[test]
fn nothing_is_found_where_there_is_no_mistake() {
    let report = explore(Bank::default())
        .saga(|bank| Correct(bank.clone()), &700)
        .crashes(2)
        .zombies(1)
        .unknown(1)
        .transient(1)
        .compensation_faults(1)
        .duplicates(1)
        .when_completed("700 are paid", |it| it.world.balance == -700)
        .when_compensated("nothing is paid", |it| it.world.balance == 0)
        .never_parked()
        .check();
    assert!(report.is_exhaustive());
    assert_eq!(report.never(), [] as [&str; 0]);
}
