//! What people do about sagas: send signals, look at what a cancel would do, get a parked one moving.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::Sagas;
use crate::definition::{Definition, Step, StepKind};
use crate::event::{Event, JournalRow, Outcome, ParkReason};
use crate::machine::{Action, Node, Phase, decide, is_past_pivot, may_have_happened, may_reach};
use crate::state::{Forward, State, Undo, item_name, split_name};
use crate::store::{Head, Status, WorkerStore};
use crate::{Error, Json, SagaId, StepRef, list, sanitize};

/// What an operator decides about a parked saga.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Resolution {
    /// What is stuck is tried again.
    Retry,
    /// Go on without it: a step that is stuck past the pivot is skipped, or one for which nothing can be made up; one in
    /// doubt did not happen, a compensation that is stuck was made by hand.
    Skip,
    /// The step did happen, and returned this; or this is made up for it.
    Supply(Json),
    /// Undo the saga; only out of a crash loop, or if nothing can be made up for a step.
    Cancel,
}

/// What came of a decision about many parked sagas.
#[derive(Debug, Default)]
pub struct Resolved {
    /// Those for which it is recorded.
    pub done: Vec<SagaId>,
    /// Those that did not take it, such as one that somebody else got moving first.
    pub refused: Vec<(SagaId, Error)>,
}

/// What a cancel would do now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UndoPlan {
    /// The compensations, in the order in which they would run; those of one round run in parallel.
    pub rounds: Vec<Vec<PlannedUndo>>,
    /// Steps whose outcome is unknown and would be found out first.
    pub in_doubt: Vec<String>,
    /// Steps that happened, or may have, and that nothing undoes.
    pub not_undone: Vec<String>,
    /// Why nothing would be undone, if so.
    pub refused: Option<String>,
}

/// One compensation of an [`UndoPlan`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedUndo {
    /// The recorded name of the step that would be undone.
    pub step: String,
    /// The compensation.
    pub compensation: String,
    /// What it would receive, by name; `None` is an output that is not known.
    pub arguments: Vec<(String, Option<Json>)>,
}

impl<S: WorkerStore> Sagas<S> {
    /// Sends a signal to a step that waits for it, or will. It returns when the signal is durable.
    ///
    /// One that comes before the step waits is kept for it, unless the step says `early = refuse` or the saga cannot come to
    /// it any more.
    ///
    /// # Errors
    /// [`Error::Refused`] if the saga has ended, has had the signal, does not come to the step, or refuses it now;
    /// [`Error::Json`] if it cannot be stored; [`Error::NoSuchSaga`] if there is none.
    pub async fn signal<T: Serialize + DeserializeOwned>(
        &self,
        saga: SagaId,
        step: StepRef<T>,
        payload: &T,
    ) -> Result<(), Error> {
        let name = step.name();
        let payload =
            Json::encode(payload).map_err(|source| Error::Json { what: format!("the signal `{name}`"), source })?;
        let event = Event::Signalled { id: Uuid::now_v7(), step: name.to_owned(), payload };
        self.append_from_outside(saga, event, |loaded, state| {
            if loaded.status.is_final() {
                return Err(format!("it has ended ({})", loaded.status.as_str()));
            }
            let definition = self.definition_of(loaded);
            let it = definition.map(|definition| definition.step(name));
            match it {
                Some(None) => return Err(format!("it has no step `{name}`")),
                Some(Some((_, step))) if step.kind != StepKind::Signal => {
                    return Err(format!("step `{name}` waits for no signal: it is a {}", step.kind));
                }
                Some(Some((_, step))) if step.refuses_early && !is_waiting(state, name) => {
                    return Err(format!("step `{name}` does not wait for a signal now"));
                }
                _ => {}
            }
            let may_come = || match (definition, it) {
                (Some(definition), Some(Some((step, _)))) => may_reach(definition, state, step),
                _ => true,
            };
            match state.record(name, None).map(|record| &record.forward) {
                Some(Forward::Waiting(_)) => Ok(loaded.status),
                None | Some(Forward::Pending(_)) if may_come() => Ok(loaded.status),
                None | Some(Forward::Pending(_)) => Err(format!("it does not come to step `{name}` any more")),
                Some(_) => Err(format!("step `{name}` has had its signal, or waits for none any more")),
            }
        })
        .await
    }

    /// Decides about a parked saga. The decision, who made it and why are recorded in the saga's journal.
    ///
    /// # Errors
    /// [`Error::Refused`] if it is not parked, or this is no way out of where it is; [`Error::NoSuchSaga`] if there is none.
    pub async fn resolve(&self, saga: SagaId, resolution: &Resolution, by: &str, why: &str) -> Result<(), Error> {
        self.resolve_if(saga, None, resolution, by, why).await
    }

    /// Decides in the same way about all sagas that are parked with this fingerprint.
    ///
    /// # Errors
    /// Returns the store's error; what a single saga refuses is in the answer.
    pub async fn resolve_all(
        &self,
        fingerprint: Uuid,
        resolution: &Resolution,
        by: &str,
        why: &str,
    ) -> Result<Resolved, Error> {
        const PAGE: usize = 500;
        let (mut resolved, mut after) = (Resolved::default(), None);
        loop {
            let page = self.store.parked(Some(fingerprint), after, PAGE).await?;
            for &saga in &page {
                match self.resolve_if(saga, Some(fingerprint), resolution, by, why).await {
                    Ok(()) => resolved.done.push(saga),
                    Err(Error::Store(error)) => return Err(error.into()),
                    Err(error) => resolved.refused.push((saga, error)),
                }
            }
            after = page.last().copied();
            if page.len() < PAGE {
                return Ok(resolved);
            }
        }
    }

    async fn resolve_if(
        &self,
        saga: SagaId,
        fingerprint: Option<Uuid>,
        resolution: &Resolution,
        by: &str,
        why: &str,
    ) -> Result<(), Error> {
        let (by, why) = (sanitize(by), sanitize(why));
        let skips = !matches!(resolution, Resolution::Retry | Resolution::Cancel);
        if skips && why.trim().is_empty() {
            return Err(Error::Refused {
                saga,
                problem: "say why: what is skipped or supplied must be justified".into(),
            });
        }
        loop {
            let loaded = self.load(saga).await?;
            let state = loaded.fold();
            let refused = |problem: String| Error::Refused { saga, problem };
            let parked = state
                .parked
                .as_ref()
                .filter(|parked| fingerprint.is_none_or(|fingerprint| parked.fingerprint == fingerprint))
                .ok_or_else(|| {
                    refused(format!("it is not parked like that any more but {}", loaded.status.as_str()))
                })?;
            let definition = self.definition_of(&loaded);
            let events = decision(definition, &state, &parked.reason, resolution, &by, &why).map_err(refused)?;
            // The worker that takes it finds out which way it goes.
            let head = Head { status: Status::Running, wake_in: Some(Duration::ZERO), release: false, parked: None };
            if self.append_if_unmoved(saga, state.seq, events, head).await? {
                return Ok(());
            }
        }
    }

    /// Which compensations a cancel would run now, with what they would receive, and what would stay.
    ///
    /// # Errors
    /// [`Error::NoSuchSaga`] if there is none; [`Error::Refused`] if its definition is not registered here.
    pub async fn plan(&self, saga: SagaId) -> Result<UndoPlan, Error> {
        let loaded = self.load(saga).await?;
        let definition = self.definition_of(&loaded).ok_or_else(|| Error::Refused {
            saga,
            problem: format!("`{}` version {} is not registered here", loaded.name, loaded.version),
        })?;
        Ok(UndoPlan::of(definition, &loaded.fold(), loaded.now))
    }
}

fn is_waiting(state: &State, step: &str) -> bool {
    let forward = state.record(step, None).map(|record| &record.forward);
    matches!(forward, Some(Forward::Waiting(waiting)) if waiting.answer.is_none())
}

/// The events that record a decision, if it is a way out.
fn decision(
    definition: Option<&Definition>,
    state: &State,
    reason: &ParkReason,
    resolution: &Resolution,
    by: &str,
    why: &str,
) -> Result<Vec<Event>, String> {
    let id = Uuid::now_v7();
    let overruled = |step: &str, output: Option<Json>| Event::Overruled {
        id: Uuid::now_v7(),
        step: step.to_owned(),
        output,
        by: by.to_owned(),
        note: why.to_owned(),
    };
    let cancelled = || Event::Cancelled { id, reason: format!("{by}: {why}"), reopens: false };
    let is_past_pivot = || definition.is_some_and(|definition| is_past_pivot(definition, state));
    match (resolution, reason) {
        (Resolution::Retry, _) => Ok(vec![Event::Resumed { id, by: by.to_owned(), note: why.to_owned() }]),
        (Resolution::Cancel, ParkReason::CrashLoop { .. }) => Ok(vec![cancelled()]),
        // Whatever reads what cannot be made up is not run any more.
        (Resolution::Cancel, ParkReason::UpcastStuck { step, .. }) if !is_past_pivot() => {
            Ok(vec![cancelled(), overruled(step, None)])
        }
        (Resolution::Cancel, ParkReason::ForwardStuck { .. } | ParkReason::UpcastStuck { .. }) => {
            Err("it is past its pivot; retry, skip or supply".into())
        }
        (Resolution::Cancel, _) => Err("it is being undone already; retry, skip or supply".into()),
        (_, ParkReason::CrashLoop { .. }) => Err("no step is stuck, its workers died; retry or cancel it".into()),
        (Resolution::Supply(_), ParkReason::CompensationStuck { .. }) => {
            Err("a compensation returns nothing; retry it, or skip it once it was made by hand".into())
        }
        (
            Resolution::Supply(output),
            ParkReason::ForwardStuck { step } | ParkReason::InDoubt { step } | ParkReason::UpcastStuck { step, .. },
        ) => Ok(vec![overruled(step, Some(output.clone()))]),
        (Resolution::Skip, ParkReason::ForwardStuck { step } | ParkReason::UpcastStuck { step, .. }) => {
            match definition.and_then(|it| reader(it, state, step)) {
                Some(reader) => Err(format!("`{reader}` reads what `{step}` returns; supply that instead")),
                None => Ok(vec![overruled(step, None)]),
            }
        }
        (Resolution::Skip, ParkReason::CompensationStuck { step } | ParkReason::InDoubt { step }) => {
            Ok(vec![overruled(step, None)])
        }
    }
}

/// A step that needs the output of this one and has not run. A list over which it runs is needed in any case.
fn reader<'a>(definition: &'a Definition, state: &State, step: &str) -> Option<&'a str> {
    let (name, _) = split_name(step);
    let (_, it) = definition.step(name)?;
    let needs = |later: &Step| {
        let is_list = later.for_each.as_ref().is_some_and(|each| each.over.split('.').next() == Some(name));
        is_list || !it.skippable && later.reads.iter().any(|read| read == name)
    };
    let has_run = |index: usize| matches!(list::output(definition, state, index, None), Ok(Some(_)));
    let readers = definition.steps.iter().enumerate().filter(|(index, later)| needs(later) && !has_run(*index));
    readers.map(|(_, later)| &*later.name).next()
}

impl UndoPlan {
    /// What a cancel would do to a saga in this state: the machine itself says so.
    pub fn of(definition: &Definition, state: &State, now: DateTime<Utc>) -> Self {
        let mut plan = Self { rounds: Vec::new(), in_doubt: Vec::new(), not_undone: Vec::new(), refused: None };
        if state.ended == Some(Outcome::Compensated) {
            plan.refused = Some("it has been undone".to_owned());
            return plan;
        }
        if is_past_pivot(definition, state) {
            plan.refused = Some("it is past its pivot, so there is no way back".to_owned());
            return plan;
        }
        let mut after = state.clone();
        let mut row = JournalRow { saga: SagaId(Uuid::nil()), seq: state.seq, events: Vec::new(), at: now };
        let mut happen = |after: &mut State, events| {
            row.seq += 1;
            row.events = events;
            after.apply(&row);
        };
        after.parked = None;
        let (id, reason) = (Uuid::nil(), String::new());
        happen(&mut after, vec![Event::Cancelled { id, reason, reopens: true }]);
        let happened = may_have_happened(definition, &after);
        let name = |node: Node| item_name(&definition.steps[node.step].name, node.item);
        // Every round ends with fewer compensations to run, or fewer steps to find out about.
        loop {
            let (mut round, mut events) = (Vec::new(), Vec::new());
            for action in decide(definition, &after) {
                let (node, phase) = match action {
                    Action::Compensate(attempt) => (attempt.node, Phase::Undo),
                    Action::Run(attempt) | Action::Probe(attempt) => (attempt.node, Phase::Probe),
                    Action::Wait(wait) if wait.phase == Phase::Undo => (wait.node, Phase::Undo),
                    Action::Wait(wait) => (wait.node, Phase::Probe),
                    Action::Accept { node, phase: Phase::Undo } => (node, Phase::Undo),
                    Action::Accept { node, .. } => (node, Phase::Probe),
                    Action::Upcast(step) => {
                        events.push(Event::Upcast {
                            step: definition.steps[step].name.to_string(),
                            output: Json::null(),
                        });
                        continue;
                    }
                    Action::Park(reason) => match reason.step().and_then(|step| definition.step(split_name(step).0)) {
                        Some((step, _)) => {
                            let item = reason.step().and_then(|step| split_name(step).1);
                            let stuck = matches!(reason, ParkReason::CompensationStuck { .. });
                            (Node { step, item }, if stuck { Phase::Undo } else { Phase::Probe })
                        }
                        None => continue,
                    },
                    _ => continue,
                };
                if phase == Phase::Undo {
                    round.push(planned(definition, state, node));
                    events.push(Event::Compensated { step: name(node) });
                } else {
                    plan.in_doubt.push(name(node));
                    // Undone in case that it happened; nobody knows yet.
                    events.push(Event::Succeeded { step: name(node), output: Json::null() });
                }
            }
            if events.is_empty() {
                break;
            }
            if !round.is_empty() {
                plan.rounds.push(round);
            }
            happen(&mut after, events);
        }
        let is_undone = |node: &Node| {
            let record = state.record(&definition.steps[node.step].name, node.item);
            record.is_some_and(|record| record.undo == Undo::Done)
                || plan.rounds.iter().flatten().any(|undo| undo.step == name(*node))
        };
        plan.not_undone = happened.iter().filter(|node| !is_undone(node)).map(|node| name(*node)).collect();
        plan
    }
}

fn planned(definition: &Definition, state: &State, node: Node) -> PlannedUndo {
    let step = &definition.steps[node.step];
    let (name, reads) = step.compensation.as_ref().map_or(("", &[][..]), |undo| (&*undo.name, &undo.reads[..]));
    let argument = |read: &std::borrow::Cow<'static, str>| {
        let value = match (&**read, definition.step(read)) {
            ("input", _) => Some(state.input.clone()),
            ("item", _) => list::items(definition, state, node.step)
                .ok()
                .and_then(|items| Json::from_text(items.get(node.item? as usize)?.get().to_owned()).ok()),
            (_, Some((index, _))) => {
                let item = node.item.filter(|_| index == node.step);
                list::output(definition, state, index, item).ok().flatten()
            }
            _ => None,
        };
        (read.to_string(), value)
    };
    PlannedUndo {
        step: item_name(&step.name, node.item),
        compensation: name.to_owned(),
        arguments: reads.iter().map(argument).collect(),
    }
}
