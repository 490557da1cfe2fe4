//! Workers drive one saga: each decides on the journal that it has seen, calls a service, and appends what came of it.

use amends::event::Outcome;
use amends::machine::{Action as Decision, Attempt};
use stateright::{Model, Property};

use super::saga::{Fact, Row, decide_on};
use super::services::{Effect, Services};

#[expect(clippy::struct_excessive_bools, reason = "each is a rule that one test leaves out")]
#[derive(Debug, Clone)]
pub(crate) struct Workers {
    pub(crate) how_many: usize,
    /// How often a lease runs out although its worker lives.
    pub(crate) lapses: u8,
    pub(crate) crashes: u8,
    /// How often somebody outside cancels the saga.
    pub(crate) cancels: u8,
    pub(crate) adoption_is_journalled: bool,
    pub(crate) appends_are_fenced: bool,
    pub(crate) services_keep_tombstones: bool,
    /// Otherwise the first rejection after an adoption looks like any other.
    pub(crate) machine_hears_of_adoptions: bool,
    /// Otherwise every rejection looks like the first attempt's.
    pub(crate) machine_hears_of_attempts: bool,
}

impl Workers {
    pub(crate) const RIGHT: Self = Self {
        how_many: 2,
        lapses: 2,
        crashes: 0,
        cancels: 0,
        adoption_is_journalled: true,
        appends_are_fenced: true,
        services_keep_tombstones: true,
        machine_hears_of_adoptions: true,
        machine_hears_of_attempts: true,
    };
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct World {
    journal: Vec<Row>,
    /// The head's owner.
    owner: Option<usize>,
    lease_has_run_out: bool,
    /// What each worker holds of the saga. One that lost it need not know.
    holds: Vec<Option<Held>>,
    services: Services,
    lapses: u8,
    crashes: u8,
    cancels: u8,
    stale_append: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Held {
    /// The journal, as far as it knows.
    rows: Vec<Row>,
    /// What came of a call, and is not recorded yet.
    answer: Option<Fact>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Action {
    Claim(usize),
    LeaseRunsOut,
    Adopt(usize),
    Call(usize, Fate),
    Append(usize),
    /// It looks at the head, as it does from time to time.
    Look(usize),
    Crash(usize),
    CancelFromOutside,
    /// A request arrives whose sender has given up.
    ArriveLate {
        step: usize,
    },
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fate {
    Done,
    /// The service declines, and keeps no trace.
    Rejected,
    /// It is still under way when its sender stops to wait.
    TimedOut,
}

pub(crate) const COMPLETED: &str = "a completed saga has all its effects";
pub(crate) const COMPENSATED: &str = "a compensated saga has no live effect";
pub(crate) const FENCED: &str = "a worker that lost its saga does not change it";

/// The step that may be rejected.
const FALLIBLE: usize = 1;

impl Workers {
    /// What the machine decides on these rows, or on what it hears of them.
    fn decide(&self, rows: &[Row]) -> Option<Decision> {
        let mut rows = rows.to_vec();
        for fact in rows.iter_mut().flatten() {
            if let Fact::Rejected { attempt, .. } = fact
                && !self.machine_hears_of_attempts
            {
                *attempt = 1;
            }
        }
        if !self.machine_hears_of_adoptions {
            for row in &mut rows {
                row.retain(|fact| *fact != Fact::Adopted);
            }
        }
        decide_on(rows)
    }

    fn fates(&self, world: &World, held: &Held) -> Vec<Fate> {
        match self.decide(&held.rows) {
            Some(Decision::Run(Attempt { node, .. })) => {
                let may_decline = node.step == FALLIBLE && world.services.effects[node.step] == Effect::None;
                let declined = may_decline.then_some(Fate::Rejected);
                [Fate::Done, Fate::TimedOut].into_iter().chain(declined).collect()
            }
            Some(Decision::Compensate(_)) => vec![Fate::Done],
            _ => Vec::new(),
        }
    }

    /// What a worker may do with what it holds, whether or not it is still its own.
    fn actions_of(&self, world: &World, worker: usize, held: &Held, actions: &mut Vec<Action>) {
        if held.answer.is_some() {
            actions.push(Action::Append(worker));
        } else {
            actions.extend(self.fates(world, held).into_iter().map(|fate| Action::Call(worker, fate)));
            if held.rows.len() < world.journal.len() || world.owner != Some(worker) {
                actions.push(Action::Look(worker));
            }
        }
        if world.crashes < self.crashes {
            actions.push(Action::Crash(worker));
        }
    }

    fn call(&self, world: &mut World, held: &Held, fate: Fate) -> Option<Fact> {
        match (self.decide(&held.rows)?, fate) {
            (Decision::Compensate(Attempt { node, .. }), _) => {
                world.services.undo(node.step, self.services_keep_tombstones);
                Some(Fact::Compensated { step: node.step })
            }
            (Decision::Run(Attempt { node, number, .. }), Fate::TimedOut) => {
                world.services.late.insert(node.step);
                Some(Fact::TimedOut { step: node.step, attempt: number })
            }
            (Decision::Run(Attempt { node, .. }), Fate::Done) if world.services.carry_out(node.step) => {
                Some(Fact::Succeeded { step: node.step })
            }
            (Decision::Run(Attempt { node, number, .. }), _) => {
                Some(Fact::Rejected { step: node.step, attempt: number })
            }
            _ => None,
        }
    }

    /// Appends behind the last row that the worker has seen. If there is another, somebody else moved the saga: what a call
    /// answered still holds, unless that was an adoption.
    fn append(&self, world: &mut World, worker: usize, held: &Held, answer: Fact) {
        if held.rows.len() < world.journal.len() && self.appends_are_fenced {
            let adopted = world.journal[held.rows.len()..].iter().flatten().any(|fact| *fact == Fact::Adopted);
            world.look(worker);
            if let Some(again) = world.holds[worker].as_mut().filter(|_| !adopted) {
                again.answer = Some(answer);
            }
            return;
        }
        let mut rows = held.rows.clone();
        rows.push(vec![answer]);
        // What follows from it is recorded with it.
        let follows = match self.decide(&rows) {
            Some(Decision::End(outcome)) => Some(Fact::Ended(outcome)),
            _ => None,
        };
        let row: Row = [answer].into_iter().chain(follows).collect();
        world.stale_append |= world.owner != Some(worker);
        world.journal.push(row.clone());
        if follows.is_some() {
            world.owner = None;
            world.holds[worker] = None;
        } else {
            *rows.last_mut().unwrap() = row;
            world.holds[worker] = Some(Held { rows, answer: None });
        }
    }
}

impl World {
    fn ended(&self) -> Option<Outcome> {
        let outcome = |fact: &Fact| if let Fact::Ended(outcome) = fact { Some(*outcome) } else { None };
        self.journal.iter().flatten().find_map(outcome)
    }

    /// Loads the saga again, or lets it go if it is somebody else's, or nobody's.
    fn look(&mut self, worker: usize) {
        let is_mine = self.owner == Some(worker);
        self.holds[worker] = is_mine.then_some(Held { rows: self.journal.clone(), answer: None });
    }

    fn own(&mut self, worker: usize) {
        (self.owner, self.lease_has_run_out) = (Some(worker), false);
        self.look(worker);
    }

    fn has_died(&self, worker: usize) -> bool {
        self.holds[worker].is_none()
    }
}

impl Model for Workers {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World {
            journal: Vec::new(),
            owner: None,
            lease_has_run_out: false,
            holds: vec![None; self.how_many],
            services: Services::new(),
            lapses: 0,
            crashes: 0,
            cancels: 0,
            stale_append: false,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        let is_over = world.ended().is_some();
        for worker in 0..self.how_many {
            match &world.holds[worker] {
                None if is_over => {}
                None if world.owner.is_none() => actions.push(Action::Claim(worker)),
                None if world.lease_has_run_out => actions.push(Action::Adopt(worker)),
                None => {}
                Some(held) => self.actions_of(world, worker, held, actions),
            }
        }
        if let Some(owner) = world.owner
            && !world.lease_has_run_out
            && (world.has_died(owner) || world.lapses < self.lapses)
        {
            actions.push(Action::LeaseRunsOut);
        }
        if world.cancels < self.cancels && !is_over {
            actions.push(Action::CancelFromOutside);
        }
        actions.extend(world.services.late.iter().map(|&step| Action::ArriveLate { step }));
    }

    fn next_state(&self, before: &World, action: Action) -> Option<World> {
        let mut world = before.clone();
        match action {
            Action::Claim(worker) => world.own(worker),
            Action::LeaseRunsOut => {
                world.lapses += u8::from(!world.has_died(world.owner?));
                world.lease_has_run_out = true;
            }
            Action::Adopt(worker) => {
                if self.adoption_is_journalled {
                    world.journal.push(vec![Fact::Adopted]);
                }
                world.own(worker);
            }
            Action::Call(worker, fate) => {
                let held = before.holds[worker].as_ref()?;
                world.holds[worker].as_mut()?.answer = self.call(&mut world, held, fate);
            }
            Action::Append(worker) => {
                let held = before.holds[worker].as_ref()?;
                self.append(&mut world, worker, held, held.answer?);
            }
            Action::Look(worker) => world.look(worker),
            Action::Crash(worker) => {
                world.holds[worker] = None;
                world.crashes += 1;
            }
            Action::CancelFromOutside => {
                world.journal.push(vec![Fact::Cancelled]);
                world.cancels += 1;
            }
            Action::ArriveLate { step } => {
                world.services.late.remove(&step);
                world.services.carry_out(step);
            }
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(COMPLETED, |_, world: &World| {
                world.ended() != Some(Outcome::Completed) || world.services.effects == [Effect::Live; 2]
            }),
            Property::always(COMPENSATED, |_, world: &World| {
                world.ended() != Some(Outcome::Compensated) || !world.services.effects.contains(&Effect::Live)
            }),
            Property::always(FENCED, |_, world: &World| !world.stale_append),
            Property::always("a saga ends once nobody can do anything more", |model: &Self, world: &World| {
                world.ended().is_some() || {
                    let mut actions = Vec::new();
                    model.actions(world, &mut actions);
                    !actions.is_empty()
                }
            }),
            Property::sometimes("it completes after two adoptions", |_, world: &World| {
                let adoptions = world.journal.iter().flatten().filter(|fact| **fact == Fact::Adopted).count();
                adoptions == 2 && world.ended() == Some(Outcome::Completed)
            }),
        ]
    }
}
