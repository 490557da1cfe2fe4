//! What the macro makes of the signatures and the keys.

use std::time::Duration;

use amends::{Call, MemoryStore, RetryPolicy, StepRef, StepResult, Store, saga};
use expect_test::expect;

struct PlaceOrder<S>(S);

#[saga(name = "place-order", version = 2, input = u64)]
impl<S: Store> PlaceOrder<S> {
    #[step(tx, compensate = release)]
    async fn reserve(&self, _tx: &mut S::Tx, input: &u64) -> StepResult<u64> {
        Ok(*input)
    }

    #[step(call, compensate = refund, retry(attempts = 3, backoff = "1s..1m"), timeout = "10s")]
    async fn charge(&self, _call: &Call, reserve: &u64) -> StepResult<u64> {
        Ok(*reserve)
    }

    #[step(call, compensate = none, after = start, retry(attempts = forever))]
    async fn look(&self, _call: &Call) -> StepResult<u64> {
        Ok(1)
    }

    #[step(tx, compensate = forget, name = "note", after = reserve)]
    async fn write(&self, _tx: &mut S::Tx, reserve: &u64) -> StepResult<u64> {
        Ok(*reserve)
    }

    #[step(call, pivot, after = [charge, look, write])]
    async fn ship(&self, _call: &Call, charge: &u64, look: &u64, reserve: &u64) -> StepResult<u64> {
        Ok(charge + look + reserve)
    }

    #[step(tx, retry(backoff = "2s..3s"))]
    async fn tell(&self, _tx: &mut S::Tx, ship: &u64) -> StepResult<()> {
        let _ = ship;
        Ok(())
    }

    #[compensate(timeout = "2m")]
    async fn release(&self, _tx: &mut S::Tx, reserve: &u64) -> StepResult<()> {
        let _ = reserve;
        Ok(())
    }

    #[compensate(retry(attempts = forever))]
    async fn refund(&self, _tx: &mut S::Tx, charge: Option<&u64>, reserve: &u64) -> StepResult<()> {
        let _ = (charge, reserve);
        Ok(())
    }

    #[compensate]
    async fn forget(&self, _call: &Call, input: &u64) -> StepResult<()> {
        let _ = input;
        Ok(())
    }
}

const DEFINITION: &amends::Definition = PlaceOrder::<MemoryStore>::DEFINITION;

#[test]
fn the_graph_is_in_the_signatures() {
    expect![[r#"
        saga place-order v2
          tx reserve, undone by tx release (needs its output)
          call charge after reserve, undone by tx refund
          call look
          tx note after reserve, undone by call forget
          call ship after charge, look, note, pivot
          tx tell after ship"#]]
    .assert_eq(&DEFINITION.to_string());
    DEFINITION.validate().expect("what the macro accepts, the engine accepts");
}

#[test]
fn a_step_is_retried_as_written_or_by_its_place() {
    let policy = |attempts, first, longest| RetryPolicy {
        attempts,
        first: Duration::from_secs(first),
        longest: Duration::from_secs(longest),
        ..RetryPolicy::STEP
    };
    let policies: Vec<_> = DEFINITION.steps.iter().map(|step| step.retry).collect();
    let forever = RetryPolicy { attempts: None, ..RetryPolicy::STEP };
    assert_eq!(
        policies,
        [RetryPolicy::STEP, policy(Some(3), 1, 60), forever, RetryPolicy::STEP, RetryPolicy::STEP, policy(None, 2, 3)]
    );
    let undo: Vec<_> = DEFINITION.steps.iter().filter_map(|step| step.compensation.as_ref()).collect();
    assert_eq!(undo[0].retry, RetryPolicy::COMPENSATION);
    assert_eq!(undo[1].retry, RetryPolicy { attempts: None, ..RetryPolicy::COMPENSATION });
}

#[test]
fn a_step_takes_the_time_that_is_written_or_the_default() {
    let timeouts: Vec<_> = DEFINITION.steps[..2].iter().map(|step| step.timeout).collect();
    assert_eq!(timeouts, [amends::Definition::DEFAULT_TIMEOUT, Duration::from_secs(10)]);
    let undo = DEFINITION.steps[0].compensation.as_ref().map(|undo| undo.timeout);
    assert_eq!(undo, Some(Duration::from_mins(2)));
}

#[test]
fn a_step_is_a_constant_with_the_name_under_which_it_is_recorded() {
    type Saga = PlaceOrder<MemoryStore>;
    let charge: StepRef<u64> = Saga::CHARGE;
    assert_eq!((charge.name(), Saga::WRITE.name()), ("charge", "note"));
    let _ = (PlaceOrder(MemoryStore::new()).0, Saga::key(7), Saga::unkeyed());
}
