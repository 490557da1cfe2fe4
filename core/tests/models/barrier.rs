//! The barrier: a participant receives an action and its compensation any number of times, in any order.
//!
//! [`receive`] is the decision that a participant makes in its own transaction, on what it remembers under the idempotency
//! key of the step.

use std::collections::BTreeSet;

use stateright::{Model, Property};

use crate::check::{breaks, holds};

/// What a participant remembers of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Memory {
    Nothing,
    Done,
    /// A tombstone: it was undone, or is never to be done.
    Undone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Command {
    Do,
    Undo,
}

/// Whether the command is carried out, and what is remembered then.
fn receive(memory: Memory, command: Command) -> (bool, Memory) {
    match (memory, command) {
        (Memory::Nothing, Command::Do) => (true, Memory::Done),
        (Memory::Done, Command::Undo) => (true, Memory::Undone),
        // There is nothing to undo; what comes late must not be done any more.
        (Memory::Nothing | Memory::Undone, Command::Undo) => (false, Memory::Undone),
        (Memory::Done | Memory::Undone, Command::Do) => (false, memory),
    }
}

/// A saga of two steps, each in a service of its own that handles commands in parallel.
#[derive(Debug, Clone)]
struct Barrier {
    handlers: usize,
    mistake: Option<Mistake>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mistake {
    RemembersNothing,
    /// A compensation is carried out though there is nothing to undo.
    NoNullCompensation,
    /// A compensation that has nothing to undo leaves no trace.
    NoTombstone,
    /// What it remembers is pruned while commands may still come again.
    ForgetsTooSoon,
    /// What it remembers is written after the effect, in a transaction of its own.
    RemembersApart,
    /// Two handlers look into the same memory at a time.
    DoesNotWait,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    services: Vec<Service>,
    /// The saga is undone: both services have said so.
    compensated: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Service {
    /// Commands that may arrive, each any number of times.
    under_way: BTreeSet<Command>,
    sent: BTreeSet<Command>,
    /// What each handler has in its transaction.
    handlers: Vec<Option<Handling>>,
    memory: Memory,
    done: u8,
    undone: u8,
    has_answered_undo: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Handling {
    command: Command,
    is_carried_out: bool,
    memory: Memory,
    /// The effect is committed, and the memory not yet: only by mistake.
    is_half_committed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Action {
    Send {
        step: usize,
        command: Command,
    },
    Arrive {
        step: usize,
        handler: usize,
        command: Command,
    },
    Commit {
        step: usize,
        handler: usize,
    },
    /// It dies, and the command comes again.
    RollBack {
        step: usize,
        handler: usize,
    },
    /// No copy of the command comes any more.
    Expire {
        step: usize,
        command: Command,
    },
    Forget {
        step: usize,
    },
}

const NOT_TWICE: &str = "a step is done once and undone once at most";
const NULL_COMPENSATION: &str = "what was not done is not undone";
const NO_DANGLING_EFFECT: &str = "a compensated saga has no live effect";

impl Barrier {
    const RIGHT: Self = Self { handlers: 2, mistake: None };

    fn receive(&self, memory: Memory, command: Command) -> (bool, Memory) {
        match (self.mistake, memory, command) {
            (Some(Mistake::RemembersNothing), ..) => (true, Memory::Nothing),
            (Some(Mistake::NoNullCompensation), Memory::Nothing, Command::Undo) => (true, Memory::Undone),
            (Some(Mistake::NoTombstone), Memory::Nothing, Command::Undo) => (false, Memory::Nothing),
            _ => receive(memory, command),
        }
    }

    /// A saga does the one step and then the other, and undoes them in the opposite order. It need not wait for the answer
    /// to an action: it may have timed out.
    fn may_send(world: &World, step: usize, command: Command) -> bool {
        let [first, second] = &world.services[..] else { return false };
        let is_sent = |service: &Service, command| service.sent.contains(&command);
        !is_sent(&world.services[step], command)
            && match (step, command) {
                (0, Command::Do) => true,
                (_, Command::Do) => is_sent(first, Command::Do) && !is_sent(first, Command::Undo),
                (0, Command::Undo) => {
                    is_sent(first, Command::Do) && (!is_sent(second, Command::Do) || second.has_answered_undo)
                }
                (_, Command::Undo) => is_sent(second, Command::Do),
            }
    }

    fn actions_at(&self, world: &World, step: usize, actions: &mut Vec<Action>) {
        let it = &world.services[step];
        for command in [Command::Do, Command::Undo] {
            if Self::may_send(world, step, command) {
                actions.push(Action::Send { step, command });
            }
        }
        // The row of the step's key is locked by the first.
        let is_free = it.handlers.iter().all(Option::is_none) || self.mistake == Some(Mistake::DoesNotWait);
        for (handler, handling) in it.handlers.iter().enumerate() {
            match handling {
                Some(_) => actions.extend([Action::Commit { step, handler }, Action::RollBack { step, handler }]),
                None if is_free => {
                    actions.extend(it.under_way.iter().map(|&command| Action::Arrive { step, handler, command }));
                }
                None => {}
            }
        }
        // A compensation is sent until it is answered.
        let may_expire = |command: &&Command| **command == Command::Do || it.has_answered_undo;
        actions.extend(it.under_way.iter().filter(may_expire).map(|&command| Action::Expire { step, command }));
        // Its retention exceeds the longest redelivery.
        let is_over = world.compensated && it.under_way.is_empty() && it.handlers.iter().all(Option::is_none);
        if it.memory != Memory::Nothing && (is_over || self.mistake == Some(Mistake::ForgetsTooSoon)) {
            actions.push(Action::Forget { step });
        }
    }

    fn commit(&self, service: &mut Service, handler: usize) -> Option<()> {
        let at = service.handlers[handler].take()?;
        if at.is_carried_out && !at.is_half_committed {
            match at.command {
                Command::Do => service.done += 1,
                Command::Undo => service.undone += 1,
            }
        }
        if self.mistake == Some(Mistake::RemembersApart) && !at.is_half_committed {
            service.handlers[handler] = Some(Handling { is_half_committed: true, ..at });
            return Some(());
        }
        service.memory = at.memory;
        service.has_answered_undo |= at.command == Command::Undo;
        Some(())
    }
}

impl Model for Barrier {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let service = Service {
            under_way: BTreeSet::new(),
            sent: BTreeSet::new(),
            handlers: vec![None; self.handlers],
            memory: Memory::Nothing,
            done: 0,
            undone: 0,
            has_answered_undo: false,
        };
        vec![World { services: vec![service; 2], compensated: false }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        (0..world.services.len()).for_each(|step| self.actions_at(world, step, actions));
    }

    fn next_state(&self, before: &World, action: Action) -> Option<World> {
        let mut world = before.clone();
        match action {
            Action::Send { step, command } => {
                world.services[step].sent.insert(command);
                world.services[step].under_way.insert(command);
            }
            Action::Arrive { step, handler, command } => {
                let service = &mut world.services[step];
                let (is_carried_out, memory) = self.receive(service.memory, command);
                service.handlers[handler] =
                    Some(Handling { command, is_carried_out, memory, is_half_committed: false });
            }
            Action::Commit { step, handler } => self.commit(&mut world.services[step], handler)?,
            Action::RollBack { step, handler } => world.services[step].handlers[handler] = None,
            Action::Expire { step, command } => _ = world.services[step].under_way.remove(&command),
            Action::Forget { step } => world.services[step].memory = Memory::Nothing,
        }
        // The first step is the last that is undone.
        world.compensated = world.services[0].has_answered_undo;
        Some(world)
    }

    /// More than twice is no more wrong than twice.
    fn within_boundary(&self, world: &World) -> bool {
        world.services.iter().all(|it| it.done <= 2 && it.undone <= 2)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(NOT_TWICE, |_, world: &World| {
                world.services.iter().all(|it| it.done <= 1 && it.undone <= 1)
            }),
            Property::always(NULL_COMPENSATION, |_, world: &World| {
                world.services.iter().all(|it| it.undone <= it.done)
            }),
            Property::always(NO_DANGLING_EFFECT, |_, world: &World| {
                !world.compensated || world.services.iter().all(|it| it.done <= it.undone)
            }),
            Property::sometimes("a step is undone before it could be done", |_, world: &World| {
                world.services.iter().any(|it| it.memory == Memory::Undone && it.done == 0)
            }),
            Property::sometimes("both steps are done and undone", |_, world: &World| {
                world.compensated && world.services.iter().all(|it| it.undone == 1)
            }),
        ]
    }
}

#[test]
fn a_compensated_saga_has_no_effect_whatever_order_its_commands_come_in() {
    holds(Barrier::RIGHT, 3_000);
}

#[test]
fn a_participant_that_remembers_nothing_does_a_step_twice() {
    breaks(Barrier { mistake: Some(Mistake::RemembersNothing), ..Barrier::RIGHT }, NOT_TWICE);
}

#[test]
fn one_that_remembers_in_another_transaction_does_a_step_twice() {
    breaks(Barrier { mistake: Some(Mistake::RemembersApart), ..Barrier::RIGHT }, NOT_TWICE);
}

#[test]
fn one_whose_handlers_do_not_wait_for_each_other_does_a_step_twice() {
    breaks(Barrier { mistake: Some(Mistake::DoesNotWait), ..Barrier::RIGHT }, NOT_TWICE);
}

#[test]
fn without_null_compensation_it_undoes_what_it_never_did() {
    breaks(Barrier { mistake: Some(Mistake::NoNullCompensation), ..Barrier::RIGHT }, NULL_COMPENSATION);
}

#[test]
fn without_a_tombstone_an_action_that_comes_late_leaves_a_live_effect() {
    breaks(Barrier { mistake: Some(Mistake::NoTombstone), ..Barrier::RIGHT }, NO_DANGLING_EFFECT);
}

#[test]
fn a_tombstone_that_is_pruned_before_the_last_redelivery_leaves_a_live_effect() {
    breaks(Barrier { mistake: Some(Mistake::ForgetsTooSoon), ..Barrier::RIGHT }, NO_DANGLING_EFFECT);
}
