//! Depth-first through every schedule; a moment that was seen before is not explored again.

use std::collections::HashMap;
use std::time::Instant;

use super::Environment;
use super::digest::digest;
use super::explorer::{Budget, Rule, When};
use super::moves::Move;
use super::simulation::Simulation;
use super::stage::Stage;
use crate::event::Outcome;

/// A schedule longer than this does not end.
const LONGEST: usize = 2_000;

/// A schedule that breaks something: the moves behind a moment, from the last to the first.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) broken: String,
    pub(super) faults: u32,
    pub(super) path: Vec<u16>,
}

/// What is known of all schedules behind a moment.
#[derive(Debug, Clone, Default)]
struct Behind {
    schedules: u128,
    found: Option<Box<Found>>,
}

/// The exploration of one saga.
pub(super) struct Search<'a, E: Environment> {
    pub(super) stage: &'a mut Stage<E>,
    pub(super) rules: &'a [Rule<E::Rule>],
    pub(super) budget: Budget,
    known: HashMap<u128, Behind>,
    pub(super) runs: u64,
    pub(super) states: u64,
}

struct Frame<S> {
    simulation: Simulation,
    saved: S,
    moves: Vec<Move>,
    next: usize,
    digest: Option<u128>,
    behind: Behind,
}

/// Where a move has led.
enum Led {
    On(Box<Simulation>, Vec<Move>),
    End(Behind),
}

impl<'a, E: Environment> Search<'a, E> {
    pub(super) fn new(stage: &'a mut Stage<E>, rules: &'a [Rule<E::Rule>], budget: Budget) -> Self {
        Self { stage, rules, budget, known: HashMap::new(), runs: 0, states: 0 }
    }

    /// How many schedules there are, the simplest that breaks something, and whether all were explored.
    pub(super) async fn explore(&mut self, root: Simulation) -> (u128, Option<Found>, bool) {
        let began = Instant::now();
        let mut stack = Vec::new();
        match self.look(root).await {
            Led::End(behind) => return (behind.schedules, behind.found.map(|found| *found), true),
            Led::On(simulation, moves) => stack.push(self.frame(*simulation, moves, None).await),
        }
        while let Some(top) = stack.last_mut() {
            if top.next == top.moves.len() || self.budget.is_spent(self.runs, began) {
                let done = top.next == top.moves.len();
                let Some(Frame { behind, digest, .. }) = stack.pop() else { break };
                if let Some(digest) = digest.filter(|_| done) {
                    self.known.insert(digest, behind.clone());
                }
                match stack.last_mut() {
                    Some(parent) => parent.take(behind),
                    None => return (behind.schedules, behind.found.map(|found| *found), done),
                }
                continue;
            }
            // The world is as it was left by the last of the moves before.
            if top.next > 0 {
                self.stage.env.restore(&top.saved).await;
            }
            let mut simulation = top.simulation.clone();
            let it = top.moves[top.next].clone();
            top.next += 1;
            let made = simulation.make(self.stage, &it).await;
            let led = match made {
                Err(wrong) => Led::End(Behind::broken(wrong)),
                Ok(()) => self.look(simulation).await,
            };
            let behind = match led {
                Led::End(behind) => behind,
                Led::On(_, _) if stack.len() >= LONGEST => Behind::broken("it does not end".to_owned()),
                Led::On(simulation, moves) => {
                    let digest = digest(&simulation, self.stage).await;
                    if let Some(known) = digest.and_then(|digest| self.known.get(&digest)) {
                        self.runs += 1;
                        known.clone()
                    } else {
                        stack.push(self.frame(*simulation, moves, digest).await);
                        continue;
                    }
                }
            };
            if let Some(top) = stack.last_mut() {
                top.take(behind);
            }
        }
        (0, None, true)
    }

    async fn frame(&mut self, simulation: Simulation, moves: Vec<Move>, digest: Option<u128>) -> Frame<E::Saved> {
        self.states += 1;
        let saved = self.stage.env.save().await;
        Frame { simulation, saved, moves, next: 0, digest, behind: Behind::default() }
    }

    /// Checks the moment, and what may happen next.
    async fn look(&mut self, simulation: Simulation) -> Led {
        if let Some(broken) = self.broken(&simulation).await {
            self.runs += 1;
            return Led::End(Behind::broken(broken));
        }
        let moves = simulation.moves(self.stage);
        if !moves.is_empty() {
            return Led::On(Box::new(simulation), moves);
        }
        self.runs += 1;
        let broken = self.broken_at_the_end(&simulation).await;
        Led::End(broken.map_or_else(Behind::end, Behind::broken))
    }

    async fn broken(&mut self, simulation: &Simulation) -> Option<String> {
        self.first_broken(simulation, |when| when == When::Always).await
    }

    pub(super) async fn broken_at_the_end(&mut self, simulation: &Simulation) -> Option<String> {
        if let Some(vain) = simulation.waits_in_vain(self.stage) {
            return Some(vain);
        }
        let root = &simulation.sagas[0].state;
        if let Some(parked) =
            root.parked.as_ref().filter(|_| self.rules.iter().any(|rule| rule.when == When::NeverParked))
        {
            return Some(format!("it is parked ({})", parked.reason.kind()));
        }
        let now = match root.ended {
            Some(Outcome::Completed) => When::Completed,
            Some(Outcome::Compensated) => When::Compensated,
            None => When::Parked,
        };
        self.first_broken(simulation, |when| when == now).await
    }

    async fn first_broken(&mut self, simulation: &Simulation, applies: impl Fn(When) -> bool) -> Option<String> {
        let facts = super::Facts { published: &simulation.published, outcome: simulation.outcome() };
        for rule in self.rules.iter().filter(|rule| applies(rule.when)) {
            let Some(check) = &rule.check else { continue };
            match self.stage.env.holds(check, facts).await {
                Ok(true) => {}
                Ok(false) => return Some(format!("{}, {}: that does not hold", rule.when, rule.name)),
                Err(error) => return Some(format!("{}, {}: {error}", rule.when, rule.name)),
            }
        }
        None
    }

    /// One schedule by chance, or the one of these moves. It gives what is broken, and the path.
    pub(super) async fn walk(
        &mut self,
        mut simulation: Simulation,
        mut choose: impl FnMut(usize) -> Option<usize>,
    ) -> (Option<String>, Vec<u16>, Simulation) {
        let mut path = Vec::new();
        loop {
            let moves = simulation.moves(self.stage);
            if moves.is_empty() {
                return (self.broken_at_the_end(&simulation).await, path, simulation);
            }
            if path.len() >= LONGEST {
                return (Some("it does not end".to_owned()), path, simulation);
            }
            let Some(index) = choose(moves.len()).filter(|index| *index < moves.len()) else {
                return (None, path, simulation);
            };
            path.push(index as u16);
            if let Err(wrong) = simulation.make(self.stage, &moves[index]).await {
                return (Some(wrong), path, simulation);
            }
            if let Some(broken) = self.broken(&simulation).await {
                return (Some(broken), path, simulation);
            }
        }
    }
}

impl<S> Frame<S> {
    /// Takes what is known behind the move that was made last.
    fn take(&mut self, behind: Behind) {
        let index = self.next - 1;
        self.behind.schedules = self.behind.schedules.saturating_add(behind.schedules);
        let Some(mut found) = behind.found else { return };
        found.faults += self.moves[index].faults();
        found.path.push(index as u16);
        let is_simpler = |other: &Found| (found.faults, found.path.len()) < (other.faults, other.path.len());
        if self.behind.found.as_deref().is_none_or(is_simpler) {
            self.behind.found = Some(found);
        }
    }
}

impl Behind {
    fn end() -> Self {
        Self { schedules: 1, found: None }
    }

    fn broken(broken: String) -> Self {
        Self { schedules: 1, found: Some(Box::new(Found { broken, faults: 0, path: Vec::new() })) }
    }
}
