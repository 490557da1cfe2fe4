//! The participant barrier: with it no schedule leaves an effect that is not wanted, and each of its rules is needed.
#![allow(clippy::unused_async, reason = "real steps await other services")]

use std::collections::BTreeMap;

use amends::testing::{Explorer, Handle, World, explore};
use amends::{Call, StepResult, saga};

/// A service that is asked to do and to undo things, as often and in whatever order the requests come.
#[derive(Clone, Debug, Hash)]
struct Service {
    without: Option<Rule>,
    /// What it remembers of each key.
    memory: BTreeMap<String, Memory>,
    /// How often it has done and undone what.
    effects: BTreeMap<String, (u32, u32)>,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq)]
enum Memory {
    Done,
    /// Also what was never done: a late request finds it.
    Undone,
}

/// What makes a barrier.
#[derive(Clone, Copy, Debug, Hash, PartialEq)]
enum Rule {
    /// What was done is not done again.
    Memory,
    /// What was not done is not undone.
    NullCompensation,
    /// What was undone before it came is not done any more.
    Tombstone,
}

impl Service {
    fn act(&mut self, key: &str) {
        let is_refused = match self.memory.get(key) {
            None => false,
            Some(Memory::Done) => self.without != Some(Rule::Memory),
            Some(Memory::Undone) => self.without != Some(Rule::Tombstone),
        };
        if !is_refused {
            self.effects.entry(key.to_owned()).or_default().0 += 1;
            self.memory.insert(key.to_owned(), Memory::Done);
        }
    }

    fn undo(&mut self, key: &str) {
        let is_undone = match self.memory.get(key) {
            None => self.without == Some(Rule::NullCompensation),
            Some(Memory::Done) => true,
            Some(Memory::Undone) => self.without == Some(Rule::Memory),
        };
        if is_undone {
            self.effects.entry(key.to_owned()).or_default().1 += 1;
        }
        self.memory.insert(key.to_owned(), Memory::Undone);
    }
}

struct Trip(Handle<Service>);

#[saga(name = "trip-behind-a-barrier", version = 1, input = i64)]
impl Trip {
    #[step(call, compensate = cancel_flight)]
    async fn flight(&self, call: &Call) -> StepResult<()> {
        self.0.with(|service| service.act(call.step_key()));
        Ok(())
    }

    #[step(call, after = flight, compensate = cancel_room)]
    async fn room(&self, call: &Call) -> StepResult<()> {
        self.0.with(|service| service.act(call.step_key()));
        Ok(())
    }

    #[compensate]
    async fn cancel_flight(&self, call: &Call) -> StepResult<()> {
        self.0.with(|service| service.undo(call.step_key()));
        Ok(())
    }

    #[compensate]
    async fn cancel_room(&self, call: &Call) -> StepResult<()> {
        self.0.with(|service| service.undo(call.step_key()));
        Ok(())
    }
}

fn explored(without: Option<Rule>) -> Explorer<World<Service, ()>> {
    explore(Service { without, memory: BTreeMap::new(), effects: BTreeMap::new() })
        .saga(|service| Trip(service.clone()), &0)
        .crashes(2)
        .zombies(1)
        .transient(1)
        .unknown(1)
        .compensation_faults(1)
        .duplicates(1)
        .when_completed("each is done once, and not undone", |it| {
            it.world.effects.len() == 2 && it.world.effects.values().all(|effect| *effect == (1, 0))
        })
        .when_compensated("what was done once was undone once, and nothing else", |it| {
            it.world.effects.values().all(|effect| matches!(effect, (0, 0) | (1, 1)))
        })
}

#[test]
fn behind_a_barrier_no_schedule_leaves_an_effect_that_is_not_wanted() {
    let report = explored(None).check();
    assert!(report.is_exhaustive(), "{report}");
}

#[test]
fn without_any_of_its_rules_there_is_a_schedule_that_does() {
    for rule in [Rule::Memory, Rule::NullCompensation, Rule::Tombstone] {
        assert!(explored(Some(rule)).run().is_err(), "nothing is found without {rule:?}");
    }
}
