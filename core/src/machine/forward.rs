//! Towards completion.

use super::view::{View, When, attempt, await_answer};
use super::{Action, Node, Phase};
use crate::event::{Outcome, ParkReason};
use crate::state::Forward;

impl View<'_> {
    pub(super) fn forward(&self) -> Vec<Action> {
        let mut actions = self.runnable();
        if actions.is_empty() {
            // Without a failure every unfinished graph has a runnable step, since edges point backwards only.
            return vec![Action::End(Outcome::Completed)];
        }
        if let Some(deadline) = self.definition.deadline.filter(|_| !self.is_past_pivot()) {
            let due =
                chrono::TimeDelta::from_std(deadline).ok().and_then(|it| self.state.started_at.checked_add_signed(it));
            actions.extend(due.map(Action::Expire));
        }
        actions
    }

    /// Past the pivot there is no way back: what can still run runs, then an operator decides.
    pub(super) fn forward_only(&self) -> Vec<Action> {
        let actions = self.runnable();
        if !actions.is_empty() {
            return actions;
        }
        let stuck =
            self.state.failed.keys().find(|name| self.state.named(name).is_some_and(|it| it.forward.has_failed()));
        match stuck {
            Some(name) => vec![Action::Park(ParkReason::ForwardStuck { step: name.clone() })],
            // Cancelled after the pivot, and all went well.
            None => vec![Action::End(Outcome::Completed)],
        }
    }

    fn runnable(&self) -> Vec<Action> {
        let ready =
            |step: &usize| self.is_open(*step) && !self.is_left_out(*step) && self.ready_at(*step, When::Now).is_some();
        self.steps().map(|(step, _)| step).filter(ready).flat_map(|step| self.runnable_in(step)).collect()
    }

    fn runnable_in(&self, step: usize) -> Vec<Action> {
        let it = &self.definition.steps[step];
        if it.for_each.is_some() && self.fan(step).is_none() {
            // Its items could not be counted, or an operator said what it returned.
            let is_settled = !matches!(self.forward_of(Node { step, item: None }), Forward::Pending(_));
            return if is_settled { Vec::new() } else { vec![Action::FanOut(step)] };
        }
        self.window(step, None).into_iter().filter_map(|node| self.run(node)).collect()
    }

    /// The next attempt at a step that has no verdict yet.
    pub(super) fn run(&self, node: Node) -> Option<Action> {
        match self.forward_of(node) {
            Forward::Pending(attempts) => {
                let mut next = attempt(node, *attempts);
                let ready = self.ready_at(node.step, When::Now);
                next.due = next.due.max(ready.and_then(|(_, at)| self.delayed(node.step, at)));
                Some(Action::Run(next))
            }
            Forward::Waiting(waiting) => Some(await_answer(node, Phase::Forward, waiting)),
            _ => None,
        }
    }
}
