//! Asks one store everything that a sequence says, and notes its answers.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use amends::store::{Append, Appended, Claim, Head, Lock, NewSaga, Store, WorkerStore};
use amends::testing::conformance::Backend;
use amends::{Event, Json, OutboxMessage, SagaId, StepTransaction, WorkerId};
use chrono::{DateTime, Utc};

use crate::answer::{appended, list, loaded, plain, set, sorted, started, store_error};
use crate::cast::Cast;
use crate::op::{New, Op, Write};

struct Performance<'a, B: Backend> {
    backend: &'a B,
    store: &'a B::Store,
    cast: &'a Cast,
    /// How many of the cast's sagas, messages and of our own appends there are so far.
    sagas: usize,
    messages: usize,
    made: Vec<NewSaga>,
    appends: Vec<(Append, bool)>,
    /// When each row was written, as the store said.
    written: HashMap<(SagaId, i64), DateTime<Utc>>,
}

/// One answer for each, and what is left at the end.
pub(crate) async fn all<B: Backend>(backend: &B, store: &B::Store, cast: &Cast, ops: &[Op]) -> Vec<String> {
    let mut it = Performance {
        backend,
        store,
        cast,
        sagas: 0,
        messages: 0,
        made: Vec::new(),
        appends: Vec::new(),
        written: HashMap::new(),
    };
    for worker in &cast.workers[..3] {
        store.register(*worker, "differential", Duration::from_hours(1)).await.unwrap();
    }
    let mut answers = Vec::new();
    for op in ops {
        answers.push(it.perform(op).await);
    }
    answers.push(it.rest().await);
    answers
}

impl<B: Backend> Performance<'_, B> {
    async fn perform(&mut self, op: &Op) -> String {
        let (store, cast) = (self.store, self.cast);
        match op {
            Op::Start { saga, owner } => {
                let saga = self.make(saga);
                started(&store.start(saga, owner.map(|owner| cast.worker(owner))).await)
            }
            Op::StartAgain { place } => match self.made.get(*place).cloned() {
                Some(saga) => started(&store.start(saga, None).await),
                None => String::new(),
            },
            Op::Transaction { sagas, commits } => self.transaction(sagas, *commits).await,
            Op::Append(write) => {
                let append = self.append(write).await;
                self.appends.push((append.clone(), write.in_step));
                self.write(append, write.in_step).await
            }
            Op::Repeat { place } => match self.appends.get(*place).cloned() {
                Some((append, in_step)) => self.repeat(append, in_step).await,
                None => String::new(),
            },
            Op::Claim { worker, limit, forward, name, version } => {
                let registered = vec![(cast.name(*name).to_owned(), *version)];
                let claim = self.claim(cast.worker(*worker), registered, *limit, true);
                set(store.claim(Claim { forward_limit: (*forward).min(*limit), ..claim }).await)
            }
            Op::ClaimAll { worker, knows } => {
                let claim = self.claim(cast.worker(*worker), self.registered(), 1_000, *knows);
                set(store.claim(claim).await)
            }
            Op::Adopt { worker, all } => {
                let limit = if *all { 1_000 } else { 0 };
                set(store.adopt(self.claim(cast.worker(*worker), self.registered(), limit, true)).await)
            }
            Op::Retire { worker } => plain(store.retire(cast.worker(*worker)).await),
            Op::Heartbeat { worker, lease } => plain(store.heartbeat(cast.worker(*worker), *lease).await),
            Op::Release { worker, saga, pause } => {
                let saga = cast.sagas[*saga];
                let owner = store.load(saga).await.unwrap().and_then(|found| found.owner);
                let worker = worker.map(|worker| cast.worker(worker)).or(owner).unwrap_or(cast.looker);
                plain(store.release(worker, &[(saga, *pause)]).await)
            }
            Op::Lock { saga } => plain(store.lock(cast.sagas[*saga]).await),
            Op::PassLock { saga } => plain(store.pass_lock(cast.sagas[*saga]).await),
            Op::Schedule { name, timetable, at } => {
                let timetable = if *timetable { "every 5m" } else { "every 7m" };
                plain(store.schedule(cast.name(*name), timetable, cast.time(*at)).await)
            }
            Op::Overdue => {
                let overdue = store.overdue(cast.names()).await;
                plain(overdue.map(|(overdue, _)| overdue.into_iter().collect::<BTreeMap<_, _>>()))
            }
            Op::StartScheduled { saga, at, next } => {
                let saga = self.make(saga);
                plain(store.start_scheduled(saga, cast.time(*at), next.map(|next| cast.time(next))).await)
            }
            Op::Load { saga } => match store.load(cast.sagas[*saga]).await {
                Ok(found) => found.as_ref().map_or("none".into(), loaded),
                Err(error) => store_error(&error),
            },
            Op::Ended => sorted(store.ended(&cast.sagas[..=self.sagas]).await),
            Op::Parked { cause, after, limit } => {
                let after = after.map_or(cast.before, |after| cast.sagas[after]);
                plain(store.parked(cause.map(|cause| cast.fingerprint(cause)), Some(after), *limit).await)
            }
            Op::Live { names, fingerprints, after, limit } => {
                let names: Vec<_> = cast.names().iter().take(*names).cloned().collect();
                let fingerprints: Vec<_> = (0..*fingerprints).map(|number| cast.fingerprint(number)).collect();
                list(store.live(&names, &fingerprints, after.map(|after| cast.sagas[after]), *limit).await)
            }
        }
    }

    /// Everything that can be seen of a store: every saga, who is due, who is nudged, who has its lock, what is overdue.
    async fn rest(&mut self) -> String {
        let mut all = Vec::new();
        for saga in &self.cast.sagas[..self.sagas] {
            let Some(found) = self.store.load(*saga).await.unwrap() else { continue };
            for row in &found.journal {
                assert_eq!(self.written.get(&(row.saga, row.seq)).unwrap_or(&row.at), &row.at, "another time: {row:?}");
            }
            all.push(loaded(&found));
        }
        all.push(self.perform(&Op::Overdue).await);
        for worker in 0..4 {
            let claim = self.claim(self.cast.worker(worker), Vec::new(), 0, true);
            all.push(format!("nudged {}", set(self.store.claim(claim).await)));
        }
        let claim = self.claim(self.cast.looker, self.registered(), 1_000, true);
        all.push(format!("due {}", set(self.store.claim(claim).await)));
        for saga in &self.cast.sagas[..self.sagas] {
            all.push(format!("lock of {saga} {}", plain(self.store.lock(*saga).await)));
        }
        all.join("\n  ")
    }

    fn make(&mut self, new: &New) -> NewSaga {
        let lock = |(key, refuse): (usize, bool)| Lock { key: format!("lock {key}"), refuse };
        let saga = NewSaga {
            id: self.cast.sagas[self.sagas],
            name: self.cast.name(new.name).to_owned(),
            version: new.version,
            fingerprint: self.cast.fingerprint(new.version as usize),
            key: new.key.map(|key| format!("key {key}")),
            input: Json::from_text(new.input.to_owned()).unwrap(),
            trace: (new.priority == 0).then(|| "00-trace".to_owned()),
            priority: Cast::priority(new.priority),
            parent: None,
            lock: new.lock.map(lock),
        };
        self.sagas += 1;
        self.made.push(saga.clone());
        saga
    }

    async fn transaction(&mut self, sagas: &[New], commits: bool) -> String {
        let mut transaction = self.backend.begin().await;
        let mut answers = Vec::new();
        for new in sagas {
            let saga = self.make(new);
            answers.push(started(&self.store.start_in(B::conn(&mut transaction), saga).await));
        }
        if commits {
            answers.push(B::commit(transaction).await.map_or_else(|error| error.to_string(), |()| "commit".into()));
        } else {
            B::rollback(transaction).await;
        }
        answers.join(", ")
    }

    async fn append(&mut self, write: &Write) -> Append {
        let saga = self.cast.sagas[write.saga];
        let rows = self.store.load(saga).await.unwrap().map_or(0, |found| found.journal.len() as i64);
        let parent = |child: NewSaga| NewSaga { parent: Some(saga), ..child };
        let starts = write.child.as_ref().map(|child| parent(self.make(child))).into_iter().collect();
        let outbox = (0..write.messages).map(|_| self.message()).collect();
        let head = write.head.as_ref().map(|change| Head {
            status: change.status,
            wake_in: change.pause,
            release: change.release,
            parked: change.cause.map(|cause| self.cast.fingerprint(cause)),
        });
        Append {
            saga,
            seq: rows + 1 + write.offset,
            writer: self.cast.worker(write.writer),
            nonce: self.appends.len() as i64,
            events: vec![Event::Succeeded { step: format!("step {}", self.appends.len()), output: Json::null() }],
            head,
            outbox,
            starts,
            wakes: write.wakes.map(|saga| self.cast.sagas[saga]),
        }
    }

    fn message(&mut self) -> OutboxMessage {
        self.messages += 1;
        OutboxMessage {
            id: self.cast.messages[self.messages],
            topic: self.cast.name(0).to_owned(),
            name: "thing.happened".into(),
            key: None,
            content_type: "application/json".into(),
            headers: BTreeMap::new(),
            payload: b"{}".to_vec(),
        }
    }

    async fn write(&mut self, append: Append, in_step: bool) -> String {
        let row = (append.saga, append.seq);
        let answer = if in_step {
            self.store.begin().await.unwrap().commit(append).await
        } else {
            self.store.append(append).await
        };
        if let Ok(Appended::Done(at)) = answer {
            let first = *self.written.entry(row).or_insert(at);
            assert_eq!(first, at, "a repetition is told the time of the first one");
        }
        appended(&answer)
    }

    /// A commit is not repeated: its transaction is gone.
    async fn repeat(&mut self, append: Append, in_step: bool) -> String {
        if in_step { String::new() } else { self.write(append, false).await }
    }

    fn registered(&self) -> Vec<(String, u32)> {
        self.cast.names().iter().flat_map(|name| (1..3).map(|version| (name.clone(), version))).collect()
    }

    /// Always a sweep: otherwise a store may pass over what has been due for long.
    fn claim(&self, worker: WorkerId, registered: Vec<(String, u32)>, limit: usize, knows_all: bool) -> Claim {
        let driven = if knows_all { self.cast.sagas.clone() } else { self.cast.sagas[..2].to_vec() };
        Claim {
            worker,
            registered,
            limit,
            forward_limit: limit,
            bounds: Vec::new(),
            hints: Vec::new(),
            sweep: true,
            driven,
        }
    }
}
