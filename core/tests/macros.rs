//! What `#[saga]` accepts, and the one message that each mistake gives.

// expect-test writes raw strings.
#![allow(missing_docs, clippy::needless_raw_string_hashes)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use amends::memory::MemoryTx;
use amends::store::{Append, Appended, Head, Status};
use amends::{
    Answer, CORRELATION_HEADER, Call, Child, Correlation, Event, Json, MemoryStore, Message, Request, RetryPolicy,
    Sagas, Signal, StepError, StepRef, StepResult, Store, WorkerId, reject, saga, skip,
};
use expect_test::expect;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

/// The messages of `tests/ui/fail` were written by this compiler; another words its own part differently.
const WRITTEN_BY: &str = "1.95";

#[test]
fn each_mistake_gives_one_message_on_its_token() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/ui/pass/*.rs");
    let version = std::process::Command::new("rustc").arg("--version").output().expect("rustc runs");
    let version = String::from_utf8_lossy(&version.stdout);
    if version.starts_with(&format!("rustc {WRITTEN_BY}")) {
        cases.compile_fail("tests/ui/fail/*.rs");
    } else {
        eprintln!("skipped the compile-fail cases: they were written by rustc {WRITTEN_BY}, this is {version}");
    }
}

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

/// Writes down what each of its methods receives.
#[derive(Clone, Default)]
struct Trip(Arc<Mutex<Vec<String>>>);

#[saga(name = "trip", version = 1, input = (String, bool))]
impl Trip {
    #[step(call, compensate = leave)]
    async fn flight(&self, _call: &Call, input: &(String, bool)) -> StepResult<String> {
        self.note(format!("flight to {}", input.0));
        Ok("12A".to_owned())
    }

    #[step(tx, compensate = cancel, name = "bed", after = start)]
    async fn hotel(&self, _tx: &mut MemoryTx) -> StepResult<Vec<u8>> {
        self.note("hotel".to_owned());
        Ok(vec![1, 2])
    }

    #[step(call, pivot, after = [flight, hotel])]
    async fn pay(&self, _call: &Call, flight: &str, hotel: &[u8], input: &(String, bool)) -> StepResult<u64> {
        self.note(format!("pay for {flight} and {hotel:?}"));
        if input.1 { Ok(7) } else { Err(reject("card_declined")) }
    }

    #[step(tx)]
    async fn tell(&self, _tx: &mut MemoryTx, pay: &u64) -> StepResult<()> {
        self.note(format!("tell of {pay}"));
        Ok(())
    }

    #[compensate]
    async fn leave(&self, _tx: &mut MemoryTx, flight: Option<&str>, input: &(String, bool)) -> StepResult<u8> {
        self.note(format!("leave {flight:?} to {}", input.0));
        Ok(0)
    }

    #[compensate]
    async fn cancel(&self, _call: &Call, hotel: &Vec<u8>) -> StepResult<()> {
        self.note(format!("cancel {hotel:?}"));
        Ok(())
    }

    fn note(&self, text: String) {
        self.0.lock().expect("nobody panics with the lock").push(text);
    }
}

/// What the methods of a trip received until it ended, in alphabetical order, since branches run in parallel.
async fn trip(card_is_good: bool) -> String {
    let trip = Trip::default();
    let sagas = Sagas::builder(MemoryStore::new()).register(trip.clone()).build().expect("a sound saga");
    let input = ("Rome".to_owned(), card_is_good);
    let saga = sagas.start_now(Trip::unkeyed(), &input).await.expect("a sound input").id();
    tokio::select! {
        ended = sagas.outcome::<Trip>(saga) => {
            let completed = ended.expect("the store is there").completed();
            assert_eq!(completed.is_some(), card_is_good);
        }
        stopped = sagas.run(CancellationToken::new()) => panic!("the worker stopped: {stopped:?}"),
    }
    let mut notes = std::mem::take(&mut *trip.0.lock().expect("nobody panics with the lock"));
    notes.sort();
    notes.join("\n")
}

#[tokio::test(start_paused = true)]
async fn each_method_receives_what_its_parameters_name() {
    expect![[r#"
        flight to Rome
        hotel
        pay for 12A and [1, 2]
        tell of 7"#]]
    .assert_eq(&trip(true).await);
}

#[tokio::test(start_paused = true)]
async fn each_compensation_receives_what_its_parameters_name() {
    expect![[r#"
        cancel [1, 2]
        flight to Rome
        hotel
        leave Some("12A") to Rome
        pay for 12A and [1, 2]"#]]
    .assert_eq(&trip(false).await);
}

#[derive(Serialize, Deserialize, Message)]
#[message(name = "pick.ask")]
struct Pick(u32);

#[derive(Serialize, Deserialize)]
struct Basket {
    lines: Vec<u32>,
    is_paid: bool,
}

struct Wrap;

#[saga(name = "wrap", version = 1, input = u32)]
impl Wrap {
    #[step(tx, compensate = none)]
    async fn fold(&self, _tx: &mut MemoryTx, input: &u32) -> StepResult<String> {
        Ok(format!("{input} folds"))
    }
}

#[derive(Clone, Default)]
struct Sell(Trip);

#[saga(name = "sell", version = 2, since = 1, input = Basket, deadline = "1h")]
impl Sell {
    #[step(request, compensate = put_back, for_each = input.lines, concurrency = 2, probe = picked, timeout = "1m")]
    fn pick(&self, item: &u32) -> Request<Pick, u32> {
        Request::new(Pick(*item))
    }

    #[step(tx, compensate = none, skippable)]
    async fn gift(&self, _tx: &mut MemoryTx) -> StepResult<u32> {
        Err(skip("no gift"))
    }

    #[step(child, name = "wrapping")]
    fn wrap(&self, pick: &[u32], gift: Option<&u32>) -> StepResult<Child<Wrap>> {
        self.0.note(format!("wrap {pick:?} and {gift:?}"));
        Ok(Child::new(&(pick.len() as u32)))
    }

    #[step(signal, early = refuse, delay = "1s")]
    fn paid(&self, wrap: &str) -> Signal<bool> {
        self.0.note(format!("wait for the money for {wrap}"));
        Signal::wait()
    }

    /// One line is too light: nobody hears whether it was sent.
    #[step(call, pivot, retry(attempts = 1, jitter = 20, budget = "1m"), probe = sent)]
    async fn send(&self, _call: &Call, paid: &bool, input: &Basket) -> StepResult<u32> {
        match (*paid, input.lines.len()) {
            (false, _) => Err(reject("not_paid")),
            (true, 1) => Err(StepError::retry("no answer")),
            _ => Ok(1),
        }
    }

    #[step(call, for_each = pick)]
    async fn tell(&self, _call: &Call, item: &u32, send: &u32) -> StepResult<u32> {
        Ok(item + send)
    }

    #[compensate]
    fn put_back(&self, item: &u32, pick: Option<&u32>) -> Request<Pick, ()> {
        self.0.note(format!("put back {item}, which is {pick:?}"));
        Request::new(Pick(*item))
    }

    #[probe(retry(attempts = 2))]
    async fn picked(&self, _call: &Call, item: &u32) -> StepResult<Option<u32>> {
        self.0.note(format!("was {item} picked?"));
        Ok(Some(item * 100))
    }

    #[probe]
    async fn sent(&self, _call: &Call, wrap: &String) -> StepResult<Option<u32>> {
        self.0.note(format!("was {wrap} sent?"));
        Ok(Some(7))
    }
}

#[test]
fn the_graph_says_what_each_kind_of_step_waits_for() {
    expect![[r#"
        saga sell v2
          request pick for each of input.lines, undone by request put_back
          tx gift after pick, skippable
          child wrapping (wrap) after gift, undone by child child
          signal paid after wrapping
          call send after paid, pivot
          call tell for each of pick after send"#]]
    .assert_eq(&Sell::DEFINITION.to_string());
    Sell::DEFINITION.validate().expect("what the macro accepts, the engine accepts");
    let reads: Vec<_> = Sell::DEFINITION.steps.iter().map(|step| step.reads.join(" ")).collect();
    assert_eq!(reads, ["item", "", "pick gift", "wrapping", "paid input", "item send"]);
    let pick = &Sell::DEFINITION.steps[0];
    assert_eq!((pick.retry, pick.timeout), (RetryPolicy::ONCE, Duration::from_mins(1)));
    assert_eq!(pick.for_each.as_ref().map(|each| (&*each.over, each.concurrency)), Some(("input.lines", 2)));
    assert_eq!((Sell::DEFINITION.since, Sell::DEFINITION.deadline), (1, Some(Duration::from_hours(1))));
}

/// Answers every request and signals whether it is paid, until the saga has ended.
async fn sell(lines: &[u32], is_paid: bool) -> (Option<Vec<u32>>, String) {
    let (sell, store) = (Sell::default(), MemoryStore::new());
    let sagas = Sagas::builder(store.clone()).register(sell.clone()).register(Wrap).build().expect("sound sagas");
    let basket = Basket { lines: lines.to_vec(), is_paid };
    let saga = sagas.start_now(Sell::unkeyed(), &basket).await.expect("a sound input").id();
    let outside = async {
        let mut answered = 0;
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            for message in store.published().iter().skip(answered) {
                answered += 1;
                let to: Correlation = message.headers[CORRELATION_HEADER].parse().expect("the engine wrote it");
                let Pick(line) = serde_json::from_slice(&message.payload).expect("the step wrote it");
                let output = if to.undo { Json::null() } else { Json::encode(&(line * 10)).expect("a number") };
                reply(&store, to, Answer::Done(output)).await;
            }
            // It is refused until the step waits.
            let _ = sagas.signal(saga, Sell::PAID, &basket.is_paid).await;
        }
    };
    let ended = tokio::select! {
        ended = sagas.outcome::<Sell>(saga) => ended.expect("the store is there"),
        () = outside => unreachable!("it goes on for ever"),
        stopped = sagas.run(CancellationToken::new()) => panic!("the worker stopped: {stopped:?}"),
    };
    let notes = std::mem::take(&mut *sell.0.0.lock().expect("nobody panics with the lock"));
    (ended.completed(), notes.join("\n"))
}

async fn reply(store: &MemoryStore, to: Correlation, answer: Answer) {
    loop {
        let loaded = store.load(to.saga).await.expect("the store is there").expect("it was started");
        let (step, undo, attempt) = (to.step.clone(), to.undo, to.attempt);
        let event = Event::Replied { id: uuid::Uuid::now_v7(), step, undo, attempt, answer: answer.clone() };
        let status = if undo { Status::Compensating } else { Status::Running };
        let append = Append {
            saga: to.saga,
            seq: loaded.fold().seq + 1,
            writer: WorkerId::new(),
            nonce: 0,
            events: vec![event],
            head: Some(Head { status, wake_in: Some(Duration::ZERO), release: false, parked: None }),
            outbox: Vec::new(),
            starts: Vec::new(),
            wakes: None,
        };
        if let Appended::Done(_) = store.append(append).await.expect("the store is there") {
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_saga_of_all_kinds_of_steps_completes() {
    let (output, notes) = sell(&[1, 2], true).await;
    assert_eq!(output, Some(vec![11, 21]));
    expect![[r#"
        wrap [10, 20] and None
        wait for the money for 2 folds"#]]
    .assert_eq(&notes);
}

#[tokio::test(start_paused = true)]
async fn a_probe_finds_out_what_a_step_returned() {
    let (output, notes) = sell(&[1], true).await;
    assert_eq!(output, Some(vec![17]));
    expect![[r#"
        wrap [10] and None
        wait for the money for 1 folds
        was 1 folds sent?"#]]
    .assert_eq(&notes);
}

#[tokio::test(start_paused = true)]
async fn a_saga_of_all_kinds_of_steps_is_undone() {
    let (output, notes) = sell(&[1, 2], false).await;
    assert_eq!(output, None);
    expect![[r#"
        wrap [10, 20] and None
        wait for the money for 2 folds
        put back 2, which is Some(20)
        put back 1, which is Some(10)"#]]
    .assert_eq(&notes);
}
