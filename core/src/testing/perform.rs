//! Makes a move: bodies run in the world, and what came of them goes into the journals.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Environment;
use super::moves::{Arrival, Effect, How, Move};
use super::simulation::{Done, Flight, Late, Reply, Simulation, correlation};
use super::stage::Stage;
use crate::definition::StepKind;
use crate::event::{Answer, Cause, Event, Rejection};
use crate::machine::Phase;
use crate::saga::{Capability, Data};
use crate::state::item_name;
use crate::store::StepTransaction;
use crate::worker::attempt::{self, contain};
use crate::worker::child::Asked;
use crate::worker::failure::{Ended, Problem, Tried};
use crate::{Call, StepError, reject};

/// What cannot be right, whatever the application means.
pub(super) type Wrong = String;

impl Simulation {
    /// Makes the move, and all that follows from it without anybody's choice.
    pub(super) async fn make<E: Environment>(&mut self, stage: &mut Stage<E>, it: &Move) -> Result<(), Wrong> {
        // The pauses between attempts are random, and the same in every run.
        fastrand::seed(1987);
        match it {
            Move::Run { saga, flight, how, dies } => self.run(stage, *saga, *flight, *how, *dies).await?,
            Move::Record { saga, flight, dies } => self.record(stage, *saga, *flight, *dies),
            Move::Die => self.die("the worker dies"),
            Move::Stop => self.stop(stage),
            Move::Land(late) => self.land(stage, *late).await?,
            Move::Deliver { request, how } => self.deliver(stage, *request, *how),
            Move::Reply(reply) => self.reply(*reply),
            Move::Signal { saga, signal } => self.signal(*saga, *signal),
            Move::Wait | Move::WaitInVain => {
                if *it == Move::WaitInVain {
                    self.left.unknowns = self.left.unknowns.saturating_sub(1);
                }
                let due = self.next_due(&stage.kinds).unwrap_or(self.now);
                self.log.line(|| format!("{} pass", super::timeline::pause(due - self.now)));
                self.now = self.now.max(due);
            }
        }
        self.settle(&stage.kinds);
        Ok(())
    }

    async fn run<E: Environment>(
        &mut self,
        stage: &mut Stage<E>,
        saga: usize,
        index: usize,
        how: How,
        dies: bool,
    ) -> Result<(), Wrong> {
        let flight = self.sagas[saga].flights[index].clone();
        self.left.spend(how, flight.phase);
        let kind = &stage.kinds[self.sagas[saga].kind];
        let body = kind.body(flight.attempt.node.step, flight.phase);
        stage.seen.ran(self.sagas[saga].kind, &flight, how, &self.sagas[saga].state);
        match (how, body) {
            (How::AsIs | How::Twice, StepKind::Tx) => {
                if how == How::Twice {
                    self.roll_back(stage, saga, &flight).await;
                }
                return self.run_tx(stage, saga, index, &flight, dies).await;
            }
            (How::DieBeforeCommit, _) => {
                self.log.rolled_back();
                self.roll_back(stage, saga, &flight).await;
                self.take_over("the worker dies before the commit");
                return Ok(());
            }
            (How::AsIs | How::Twice, StepKind::Child) => {
                let done = self.undo_child(stage, saga, &flight);
                self.sagas[saga].flights[index].result = Some(Arc::new(done));
                return Ok(());
            }
            (How::AsIs | How::Twice, _) => {
                let done = self.call(stage, saga, &flight).await?;
                if how == How::Twice {
                    self.log.line(|| "the request arrives a second time:".to_owned());
                    self.call(stage, saga, &flight).await?;
                }
                self.sagas[saga].flights[index].result = Some(Arc::new(done));
                return Ok(());
            }
            _ => {}
        }
        let event = self.fault(stage, saga, &flight, how).await?;
        self.sagas[saga].flights[index].result = Some(Arc::new(Done::event(event)));
        self.record(stage, saga, index, dies);
        Ok(())
    }

    fn log_ran<E: Environment>(&mut self, stage: &Stage<E>, saga: usize, flight: &Flight, ended: &Ended) {
        let it = &self.sagas[saga];
        let others = it.flights.iter().filter(|other| other.attempt.node != flight.attempt.node).count();
        self.log.ran((saga, it.kind, others), flight, stage, ended);
    }

    /// A call is in hand until it is recorded.
    async fn call<E: Environment>(
        &mut self,
        stage: &mut Stage<E>,
        saga: usize,
        flight: &Flight,
    ) -> Result<Done, Wrong> {
        let call = self.capability(stage, saga, flight);
        self.see_that_it_repeats(stage, saga, flight).await?;
        let ended = self.body(stage, saga, flight, Capability::Call(&call)).await;
        self.log_ran(stage, saga, flight, &ended);
        let outbox = if ended.is_ok() { call.take_outbox() } else { Vec::new() };
        Ok(Done { event: self.event(stage, saga, flight, ended), outbox, starts: Vec::new() })
    }

    /// A transaction that does not commit.
    async fn roll_back<E: Environment>(&mut self, stage: &mut Stage<E>, saga: usize, flight: &Flight) {
        let mut tx = stage.env.begin().await;
        let ended = self.body(stage, saga, flight, Capability::Tx(&mut tx)).await;
        if let Err(error) = stage.env.end(tx, false).await {
            tracing::debug!(%error, "a rollback found no transaction");
        }
        self.log_ran(stage, saga, flight, &ended);
    }

    /// A transaction commits with its record.
    async fn run_tx<E: Environment>(
        &mut self,
        stage: &mut Stage<E>,
        saga: usize,
        index: usize,
        flight: &Flight,
        dies: bool,
    ) -> Result<(), Wrong> {
        let mut tx = stage.env.begin().await;
        let mut ended = self.body(stage, saga, flight, Capability::Tx(&mut tx)).await;
        let outbox = if ended.is_ok() { std::mem::take(tx.outbox()) } else { Vec::new() };
        if let Err(error) = stage.env.end(tx, ended.is_ok()).await {
            ended = Err(Problem::Body(StepError::retry(error.to_string())));
        }
        self.log_ran(stage, saga, flight, &ended);
        let event = self.event(stage, saga, flight, ended);
        self.sagas[saga].flights[index].result = Some(Arc::new(Done { event, outbox, starts: Vec::new() }));
        self.record(stage, saga, index, dies);
        Ok(())
    }

    /// An attempt that does not go as its body says.
    async fn fault<E: Environment>(
        &mut self,
        stage: &mut Stage<E>,
        saga: usize,
        flight: &Flight,
        how: How,
    ) -> Result<Event, Wrong> {
        let error = |text: &str| Err(Problem::Body(StepError::retry(text.to_owned())));
        let ended = match how {
            How::Reject => Err(Problem::Body(reject(self.code))),
            How::FailAfter | How::TimeOut(Effect::Present) => {
                self.call(stage, saga, flight).await?;
                error("the answer was lost")
            }
            How::TimeOut(Effect::Late) => {
                self.late.push(Late { saga, flight: flight.clone() });
                error("no answer, and the request still arrives")
            }
            _ => error("it did not get through"),
        };
        self.log.fault(self.sagas[saga].kind, flight, stage, how);
        let mut event = self.event(stage, saga, flight, ended);
        if let (
            How::TimeOut(_) | How::GiveUp,
            Event::Failed { failure, .. } | Event::CompensationFailed { failure, .. },
        ) = (how, &mut event)
        {
            (failure.cause, failure.retry_in) = (Cause::Timeout, None);
        }
        Ok(event)
    }

    fn event<E: Environment>(&self, stage: &Stage<E>, saga: usize, flight: &Flight, ended: Ended) -> Event {
        let (node, attempt) = (flight.attempt.node, flight.attempt);
        let step = &stage.kinds[self.sagas[saga].kind].definition.steps[node.step];
        let tried = Tried { step, phase: flight.phase, attempt: attempt.number, since: attempt.since };
        tried.event(item_name(&step.name, node.item), ended, self.now).0
    }

    fn record<E: Environment>(&mut self, stage: &Stage<E>, saga: usize, flight: usize, dies: bool) {
        let flight = self.sagas[saga].flights.remove(flight);
        let Some(result) = flight.result else { return };
        self.append(&stage.kinds, saga, Arc::unwrap_or_clone(result));
        if dies {
            self.left.crashes = self.left.crashes.saturating_sub(1);
            self.take_over("the worker dies right after that is recorded");
        }
    }

    fn die(&mut self, how: &str) {
        self.left.crashes = self.left.crashes.saturating_sub(1);
        self.take_over(how);
    }

    fn take_over(&mut self, how: &str) {
        self.log.line(|| format!("{how}; another one takes over"));
        self.adopt();
    }

    /// The calls that the stopped worker was about to make still arrive; its transactions cannot commit any more.
    fn stop<E: Environment>(&mut self, stage: &Stage<E>) {
        self.left.zombies = self.left.zombies.saturating_sub(1);
        for (index, saga) in self.sagas.iter().enumerate() {
            let is_call = |flight: &&Flight| {
                let body = stage.kinds[saga.kind].body(flight.attempt.node.step, flight.phase);
                flight.result.is_none() && body == StepKind::Call && flight.phase != Phase::Probe
            };
            let late = saga.flights.iter().filter(is_call).map(|flight| Late { saga: index, flight: flight.clone() });
            self.late.extend(late);
        }
        self.take_over("the worker stops for so long that it is taken for dead");
    }

    async fn land<E: Environment>(&mut self, stage: &mut Stage<E>, late: usize) -> Result<(), Wrong> {
        let Late { saga, flight } = self.late.remove(late);
        self.log.line(|| "what nobody waits for any more arrives:".to_owned());
        self.call(stage, saga, &flight).await.map(drop)
    }

    fn deliver<E: Environment>(&mut self, stage: &Stage<E>, request: usize, how: Arrival) {
        let request = self.requests.remove(request);
        let answer = stage.participants.get(&request.name);
        let refused = || Some(Answer::Rejected(Rejection::new(self.code)));
        let answers: Vec<_> = match how {
            Arrival::Once => answer.map(|answer| answer(&request)).into_iter().collect(),
            Arrival::Twice => answer.map(|answer| [answer(&request), answer(&request)]).into_iter().flatten().collect(),
            Arrival::Refused => vec![refused()],
        };
        match how {
            Arrival::Once => {}
            Arrival::Twice => self.left.duplicates -= 1,
            Arrival::Refused => self.left.rejections -= 1,
        }
        for answer in answers {
            let text = super::timeline::answer(answer.as_ref());
            self.log.line(|| format!("`{}` reaches its participant: {text}", request.name));
            if let (Some(to), Some(answer)) = (correlation(&request), answer) {
                let id = Uuid::new_v5(&to.saga.0, format!("{to} {}", self.replies.len()).as_bytes());
                self.replies.push(Reply { id, to, answer });
            }
        }
    }

    fn reply(&mut self, reply: usize) {
        let Reply { id, to, answer } = self.replies.remove(reply);
        let Some(saga) = self.sagas.iter().position(|saga| saga.id == to.saga) else { return };
        self.log.line(|| format!("the reply for `{}` comes", to.step));
        if self.sagas[saga].state.ended.is_none() {
            self.write(saga, vec![Event::Replied { id, step: to.step, undo: to.undo, attempt: to.attempt, answer }]);
        }
    }

    fn signal(&mut self, saga: usize, signal: usize) {
        let (step, payload) = self.signals.remove(signal);
        self.log.line(|| format!("the signal `{step}` comes"));
        let id = Uuid::new_v5(&self.sagas[saga].id.0, format!("{step} {}", self.signals.len()).as_bytes());
        self.write(saga, vec![Event::Signalled { id, step, payload }]);
    }

    fn undo_child<E: Environment>(&mut self, stage: &Stage<E>, saga: usize, flight: &Flight) -> Done {
        let parent = &self.sagas[saga];
        let step = &stage.kinds[parent.kind].definition.steps[flight.attempt.node.step];
        let name = item_name(&step.name, flight.attempt.node.item);
        let child = parent.state.record(&step.name, flight.attempt.node.item).and_then(|record| record.child);
        let child = child.and_then(|id| self.sagas.iter().position(|saga| saga.id == id));
        let Some(child) = child else { return Done::event(Event::Compensated { step: name }) };
        let (parent, it) = (parent.id, &self.sagas[child]);
        let (id, definition) = (it.id, &stage.kinds[it.kind].definition);
        let asked = Asked::of(Some(definition), id, &it.state, parent);
        let event = asked.event(step, flight.attempt, id, self.now);
        if let Asked::Write(cancelled) = asked {
            self.write(child, vec![cancelled]);
        }
        Done::event(event)
    }

    fn capability<E: Environment>(&self, stage: &Stage<E>, saga: usize, flight: &Flight) -> Call {
        let it = &self.sagas[saga];
        let step = &stage.kinds[it.kind].definition.steps[flight.attempt.node.step];
        attempt::call(it.id, step, flight.attempt, flight.phase, CancellationToken::new())
    }

    async fn body<E: Environment>(
        &self,
        stage: &Stage<E>,
        saga: usize,
        flight: &Flight,
        capability: Capability<'_, E::Tx>,
    ) -> Ended {
        let kind = &stage.kinds[self.sagas[saga].kind];
        let (steps, step, data) = (kind.make(), flight.attempt.node.step, Data::clone(&flight.data));
        let limit = attempt::limit(&kind.definition.steps[step], flight.phase);
        let body = async {
            match flight.phase {
                Phase::Forward => steps.execute(step, capability, data).await.map(Some),
                Phase::Undo => steps.compensate(step, capability, data).await.map(Some),
                Phase::Probe => steps.probe(step, capability.call(), data).await,
            }
        };
        timeout(limit, contain(body)).await.unwrap_or(Err(Problem::Timeout(limit)))
    }

    /// Runs a body twice in the same moment: what a retry after a crash would do must not depend on more than that.
    async fn see_that_it_repeats<E: Environment>(
        &self,
        stage: &mut Stage<E>,
        saga: usize,
        flight: &Flight,
    ) -> Result<(), Wrong> {
        let what = (self.sagas[saga].kind, flight.attempt.node.step, flight.phase as u8);
        if !stage.repeats || !stage.repeated.insert(what) || !stage.env.hash(&mut DefaultHasher::new()).await {
            return Ok(());
        }
        let saved = stage.env.save().await;
        let mut seen = [0; 2];
        for seen in &mut seen {
            let call = self.capability(stage, saga, flight);
            let ended = self.body(stage, saga, flight, Capability::Call(&call)).await;
            let mut hasher = DefaultHasher::new();
            super::timeline::outcome(&ended).hash(&mut hasher);
            stage.env.hash(&mut hasher).await;
            *seen = hasher.finish();
            stage.env.restore(&saved).await;
        }
        if seen[0] == seen[1] {
            return Ok(());
        }
        Err(format!(
            "{} does not do the same when it runs again in the same moment: it depends on the wall clock, on chance, or on \
             something outside of the world",
            super::timeline::title(stage, self.sagas[saga].kind, flight)
        ))
    }
}
