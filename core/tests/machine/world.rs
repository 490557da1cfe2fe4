//! Everybody else: services that answer when they like, people who send signals, operators; and what really happened.

use amends::event::{Answer, Event, ParkReason, Rejection};
use amends::machine::{Node, Phase, Wait};
use amends::{Json, StepKind};
use uuid::Uuid;

use crate::history::{Flight, History};
use crate::oracle::Oracle;

#[derive(Debug, Default)]
pub(crate) struct World {
    /// What took effect, whoever knows of it.
    effects: Vec<Node>,
    /// What was sent; whether it is answered, and when, is up to chance.
    messages: Vec<Message>,
    ids: u128,
}

#[derive(Debug, Clone)]
struct Message {
    step: String,
    undo: bool,
    attempt: u32,
    answer: Answer,
    id: Uuid,
}

impl World {
    pub(crate) fn has_effect(&self, node: Node) -> bool {
        self.effects.contains(&node)
    }

    pub(crate) fn take_effect(&mut self, node: Node) {
        if !self.has_effect(node) {
            self.effects.push(node);
        }
    }

    /// What really happened has been undone: all of it at the end, and what was given up before that.
    pub(crate) fn check_undone(&self, oracle: &Oracle, is_end: bool) {
        for node in self.effects.iter().filter(|node| is_end || oracle.is_abandoned(node.step)) {
            let step = &oracle.definition.steps[node.step];
            assert!(!step.pivot, "the pivot {node:?} happened, and all is undone");
            let undone = oracle.facts(*node).undo == crate::facts::UndoFate::Done;
            assert!(undone || step.compensation.is_none(), "{node:?} happened and was not undone");
        }
    }

    fn new_id(&mut self) -> Uuid {
        self.ids += 1;
        Uuid::from_u128(1000 + self.ids)
    }
}

impl History {
    /// What was begun goes out with the row that says so.
    pub(crate) fn send(&mut self, events: &[Event]) {
        for event in events {
            let Event::Begun { step, undo, attempt, .. } = event else { continue };
            let node = self.oracle.node(step);
            let kind = self.kind(node, if *undo { Phase::Undo } else { Phase::Forward });
            let happens = self.world.has_effect(node) || self.rng.u8(0..4) > 0;
            if kind == StepKind::Signal || (kind == StepKind::Child && *undo) {
                continue;
            }
            if !undo && happens {
                self.world.take_effect(node);
            }
            let answer = if happens || (*undo && self.rng.bool()) {
                Answer::Done(Json::encode(attempt).unwrap())
            } else {
                Answer::Rejected(Rejection::new("no"))
            };
            let id = self.world.new_id();
            self.world.messages.push(Message { step: step.clone(), undo: *undo, attempt: *attempt, answer, id });
        }
    }

    /// Of any attempt, for the first time or once more; sometimes it names an attempt that nobody made.
    pub(crate) fn any_reply(&mut self) -> Option<Event> {
        let messages: Vec<_> = self.world.messages.iter().filter(|message| self.is_request(message)).cloned().collect();
        let message = messages.get(self.rng.usize(0..messages.len().max(1)))?;
        let attempt = message.attempt + u32::from(self.rng.u8(0..8) == 0);
        Some(self.replied(message, attempt))
    }

    fn is_request(&self, message: &Message) -> bool {
        let node = self.oracle.node(&message.step);
        self.kind(node, if message.undo { Phase::Undo } else { Phase::Forward }) == StepKind::Request
    }

    fn replied(&mut self, message: &Message, attempt: u32) -> Event {
        let id = if self.rng.u8(0..4) == 0 { self.world.new_id() } else { message.id };
        let Message { step, undo, answer, .. } = message.clone();
        Event::Replied { id, step, undo, attempt, answer }
    }

    /// Whether or not somebody waits for it yet.
    pub(crate) fn early_signal(&mut self) -> Option<Event> {
        let signals: Vec<_> = self.definition.steps.iter().filter(|step| step.kind == StepKind::Signal).collect();
        let step = signals.get(self.rng.usize(0..signals.len().max(1)))?.name.to_string();
        Some(Event::Signalled { id: self.world.new_id(), step, payload: Json::null() })
    }

    /// A reply, a signal, or the end of the saga that was started.
    pub(crate) fn what_is_waited_for(&mut self, wait: Wait) -> Option<Event> {
        let (step, undo) = (self.name(wait.node), wait.phase == Phase::Undo);
        if self.kind(wait.node, wait.phase) == StepKind::Signal {
            return Some(Event::Signalled { id: self.world.new_id(), step, payload: Json::null() });
        }
        let sent = |it: &&Message| (&it.step, it.undo, it.attempt) == (&step, undo, wait.number);
        let message = self.world.messages.iter().rev().find(sent).cloned();
        if self.kind(wait.node, wait.phase) == StepKind::Request {
            let message = message.expect("what is waited for was sent");
            let id = self.world.new_id();
            return Some(Event::Replied { id, step, undo, attempt: wait.number, answer: message.answer });
        }
        let event = match message.map(|message| message.answer) {
            None if self.bad_luck(4) => self.failed(wait.node, wait.phase, wait.number, amends::event::Cause::Data),
            None => Event::Compensated { step },
            Some(Answer::Done(output)) => Event::Succeeded { step, output },
            Some(Answer::Rejected(rejection)) => Event::Rejected { step, attempt: wait.number, rejection },
        };
        self.flying.push(Flight { node: wait.node, phase: wait.phase, number: wait.number, event: Some(event) });
        None
    }

    /// What an operator who knows the world says of the step that is stuck.
    pub(crate) fn overruled(&mut self, id: Uuid) -> Option<Event> {
        let reason = self.state.parked.as_ref()?.reason.clone();
        let step = reason.step()?.to_owned();
        let node = self.oracle.node(&step);
        let happened = match reason {
            ParkReason::InDoubt { .. } => self.world.has_effect(node),
            ParkReason::ForwardStuck { .. } => self.rng.bool(),
            _ => false,
        };
        let output = happened.then(Json::null);
        Some(Event::Overruled { id, step, output, by: "op".into(), note: "so it is".into() })
    }
}
