//! A saga of all kinds of steps.

use std::time::Duration;

use amends::memory::MemoryTx;
use amends::store::{Append, Appended, Head, Status};
use amends::{
    Answer, CORRELATION_HEADER, Call, Child, Correlation, Event, Json, MemoryStore, Message, Request, RetryPolicy,
    Sagas, Signal, StepError, StepResult, Store, WorkerId, reject, saga, skip,
};
use expect_test::expect;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::Notes;

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
struct Sell(Notes);

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
    (ended.completed(), sell.0.take().join("\n"))
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
