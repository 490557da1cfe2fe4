//! The inbox: a message is delivered again and again, and its row is pruned some day.
//!
//! No function decides here: the order of the statements does, which is that of `Consumer` in `amends-relay`.

use stateright::{Model, Property};

use crate::check::{breaks, holds};

/// So long after its effect a message may still be delivered again, in ticks of a clock.
const LONGEST_REDELIVERY: u8 = 2;

/// Copies of each message that the relay publishes.
const COPIES: u8 = 2;

#[derive(Debug, Clone)]
struct Inbox {
    messages: usize,
    consumers: usize,
    /// A row is pruned when it is so old.
    retention: u8,
    mistake: Option<Mistake>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mistake {
    AcksBeforeTheCommit,
    CommitsTheRowBeforeTheHandler,
    CommitsTheRowAfterTheHandler,
}

impl Inbox {
    const RIGHT: Self = Self { messages: 2, consumers: 2, retention: LONGEST_REDELIVERY + 1, mistake: None };
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    messages: Vec<Message>,
    consumers: Vec<Option<Hand>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Message {
    to_publish: u8,
    /// Copies that wait to be delivered.
    queue: u8,
    /// The age of the committed inbox row.
    row: Option<u8>,
    /// Committed effects, and the age of the first.
    effects: u8,
    age: u8,
}

/// A copy that a consumer has in hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Hand {
    message: usize,
    stage: Stage,
    acked: bool,
}

/// How far a consumer is with a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Stage {
    Received,
    /// Its transaction holds the inbox row.
    RowWritten,
    /// It holds what the handler did, too.
    Handled,
    /// There is nothing left but to ack it.
    Settled,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Action {
    Publish {
        message: usize,
    },
    Deliver {
        message: usize,
        consumer: usize,
    },
    InsertRow(usize),
    Handle(usize),
    /// The handler fails: the transaction is rolled back, and the message tried again.
    Fail(usize),
    Commit(usize),
    Ack(usize),
    /// What was not committed is rolled back, and what was not acked is delivered again.
    Crash(usize),
    Tick,
    Prune {
        message: usize,
    },
}

const NOTHING_IS_LOST: &str = "a message takes effect";
const ONCE: &str = "a message takes effect once";

impl Inbox {
    fn actions_of(&self, world: &World, consumer: usize, hand: Hand, actions: &mut Vec<Action>) {
        let row_goes_with_effect = self.commits_row_with_effect();
        match hand.stage {
            Stage::Received if row_goes_with_effect && world.must_wait(hand.message) => {}
            Stage::Received => actions.push(Action::InsertRow(consumer)),
            Stage::RowWritten => actions.extend([Action::Handle(consumer), Action::Fail(consumer)]),
            Stage::Handled if self.mistake == Some(Mistake::AcksBeforeTheCommit) && !hand.acked => {
                actions.push(Action::Ack(consumer));
            }
            Stage::Handled => actions.push(Action::Commit(consumer)),
            Stage::Settled => actions.push(Action::Ack(consumer)),
        }
        actions.push(Action::Crash(consumer));
    }

    fn commits_row_with_effect(&self) -> bool {
        self.mistake.is_none_or(|mistake| mistake == Mistake::AcksBeforeTheCommit)
    }

    fn insert_row(&self, message: &mut Message) -> Stage {
        if message.row.is_some() {
            return Stage::Settled;
        }
        if self.mistake == Some(Mistake::CommitsTheRowBeforeTheHandler) {
            message.row = Some(0);
        }
        Stage::RowWritten
    }

    fn commit(&self, message: &mut Message) -> Stage {
        message.effects += 1;
        if self.commits_row_with_effect() {
            message.row = Some(0);
        }
        Stage::Settled
    }

    /// A consumer that is done with a copy lets go of it.
    fn ack(&self, hand: Hand, message: &mut Message) -> Option<Hand> {
        if hand.stage != Stage::Settled {
            return Some(Hand { acked: true, ..hand });
        }
        if self.mistake == Some(Mistake::CommitsTheRowAfterTheHandler) {
            message.row = message.row.or(Some(0));
        }
        None
    }
}

impl World {
    /// A second copy waits for the transaction that holds the row.
    fn must_wait(&self, message: usize) -> bool {
        let holds_row = |hand: &Hand| matches!(hand.stage, Stage::RowWritten | Stage::Handled);
        self.consumers.iter().flatten().any(|hand| hand.message == message && holds_row(hand))
    }

    fn is_around(&self, message: usize) -> bool {
        self.messages[message].queue > 0 || self.consumers.iter().flatten().any(|hand| hand.message == message)
    }

    /// Time stands still while a copy is around that is as old as one can be.
    fn may_tick(&self, retention: u8) -> bool {
        let is_last_chance = |(at, it): (usize, &Message)| it.age >= LONGEST_REDELIVERY && self.is_around(at);
        let has_news = self.messages.iter().any(|it| it.effects > 0 && it.age <= retention);
        has_news && !self.messages.iter().enumerate().any(is_last_chance)
    }
}

impl Model for Inbox {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let message = Message { to_publish: COPIES, queue: 0, row: None, effects: 0, age: 0 };
        vec![World { messages: vec![message; self.messages], consumers: vec![None; self.consumers] }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        for (message, it) in world.messages.iter().enumerate() {
            if it.to_publish > 0 && it.age <= LONGEST_REDELIVERY {
                actions.push(Action::Publish { message });
            }
            if it.row.is_some_and(|age| age >= self.retention) {
                actions.push(Action::Prune { message });
            }
        }
        for (consumer, hand) in world.consumers.iter().enumerate() {
            if let Some(hand) = hand {
                self.actions_of(world, consumer, *hand, actions);
                continue;
            }
            let waiting = (0..self.messages).filter(|message| world.messages[*message].queue > 0);
            actions.extend(waiting.map(|message| Action::Deliver { message, consumer }));
        }
        if world.may_tick(self.retention) {
            actions.push(Action::Tick);
        }
    }

    fn next_state(&self, before: &World, action: Action) -> Option<World> {
        let mut world = before.clone();
        let World { messages, consumers } = &mut world;
        match action {
            Action::Publish { message } => {
                messages[message].to_publish -= 1;
                messages[message].queue += 1;
            }
            Action::Deliver { message, consumer } => {
                messages[message].queue -= 1;
                consumers[consumer] = Some(Hand { message, stage: Stage::Received, acked: false });
            }
            Action::InsertRow(consumer) => {
                let hand = consumers[consumer].as_mut()?;
                hand.stage = self.insert_row(&mut messages[hand.message]);
            }
            Action::Handle(consumer) => consumers[consumer].as_mut()?.stage = Stage::Handled,
            Action::Fail(consumer) => consumers[consumer].as_mut()?.stage = Stage::Received,
            Action::Commit(consumer) => {
                let hand = consumers[consumer].as_mut()?;
                hand.stage = self.commit(&mut messages[hand.message]);
            }
            Action::Ack(consumer) => {
                let hand = consumers[consumer]?;
                consumers[consumer] = self.ack(hand, &mut messages[hand.message]);
            }
            Action::Crash(consumer) => {
                let hand = consumers[consumer].take()?;
                messages[hand.message].queue += u8::from(!hand.acked);
            }
            Action::Tick => {
                for it in messages.iter_mut().filter(|it| it.effects > 0 && it.age <= self.retention) {
                    it.age += 1;
                    it.row = it.row.map(|age| age + 1);
                }
            }
            Action::Prune { message } => messages[message].row = None,
        }
        Some(world)
    }

    /// Two effects are wrong enough.
    fn within_boundary(&self, world: &World) -> bool {
        world.messages.iter().all(|it| it.effects <= 2)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(NOTHING_IS_LOST, |_, world: &World| {
                let is_lost =
                    |(at, it): (usize, &Message)| it.to_publish == 0 && it.effects == 0 && !world.is_around(at);
                !world.messages.iter().enumerate().any(is_lost)
            }),
            Property::always(ONCE, |_, world: &World| world.messages.iter().all(|it| it.effects <= 1)),
            Property::sometimes("its row is pruned", |_, world: &World| {
                world.messages.iter().any(|it| it.effects > 0 && it.row.is_none())
            }),
        ]
    }
}

#[test]
fn a_message_takes_effect_once_however_often_it_is_delivered() {
    holds(Inbox::RIGHT, 3_000);
}

#[test]
fn an_ack_before_the_commit_loses_messages() {
    breaks(Inbox { mistake: Some(Mistake::AcksBeforeTheCommit), ..Inbox::RIGHT }, NOTHING_IS_LOST);
}

#[test]
fn a_row_that_is_committed_before_the_handler_loses_messages() {
    breaks(Inbox { mistake: Some(Mistake::CommitsTheRowBeforeTheHandler), ..Inbox::RIGHT }, NOTHING_IS_LOST);
}

#[test]
fn a_row_that_is_committed_after_the_handler_lets_a_message_take_effect_twice() {
    breaks(Inbox { mistake: Some(Mistake::CommitsTheRowAfterTheHandler), ..Inbox::RIGHT }, ONCE);
}

#[test]
fn a_retention_shorter_than_the_longest_redelivery_lets_a_message_take_effect_twice() {
    breaks(Inbox { retention: LONGEST_REDELIVERY, ..Inbox::RIGHT }, ONCE);
}
