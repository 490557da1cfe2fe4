//! Relays on one lane: one has the lease, one may believe that it still has it, the others stand by.

use std::collections::BTreeSet;

use stateright::{Model, Property};

use super::broker::{Answer, Flight};
use super::outbox::{Log, Open, key};
use crate::relay::window::{Ordering, unpublished};

#[derive(Debug, Clone)]
pub(super) struct Relays {
    /// The keys of the messages, which are all committed; `-` is none.
    pub(super) keys: &'static str,
    pub(super) how_many: usize,
    pub(super) page: i64,
    pub(super) ordering: Ordering,
    /// How often a lease runs out although its relay lives.
    pub(super) lapses: u8,
    pub(super) crashes: u8,
    /// How many messages the broker refuses, by a nack or a return.
    pub(super) refusals: u8,
    pub(super) mistake: Option<Mistake>,
}

/// What a relay does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mistake {
    MovesBeforeTheConfirm,
    TakesNacksForAcks,
    IgnoresReturns,
    /// It takes a returned message for that of the confirm which carries it.
    TrustsTheConfirm,
    MovesUnguarded,
}

impl Relays {
    pub(super) const RIGHT: Self = Self {
        keys: "aba",
        how_many: 2,
        page: 2,
        ordering: Ordering::Strict,
        lapses: 1,
        crashes: 1,
        refusals: 1,
        mistake: None,
    };
}

const WAVE: usize = 2;
pub(super) const CHANNELS: usize = 2;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct World {
    /// The cursor's row.
    epoch: u8,
    owner: Option<usize>,
    owner_has_died: bool,
    cursor: i64,
    went_back: bool,
    /// The held messages.
    held: BTreeSet<i64>,
    relays: Vec<Relay>,
    /// Waves whose relay is gone, but which are on their way to the broker.
    orphans: Vec<Flight>,
    /// First deliveries to the queue.
    queue: Vec<i64>,
    lapses: u8,
    crashes: u8,
    refusals: u8,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Relay {
    /// The epoch under which it took the lane; `None` while it stands by.
    epoch: Option<u8>,
    /// The last message that it has read.
    read: i64,
    held_keys: BTreeSet<char>,
    has_held: bool,
    log: Log,
    flights: Vec<Flight>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Action {
    TakeOver(usize),
    /// It reads pages ahead and publishes waves, as its loop does after everything that happens.
    Launch(usize),
    RetryHeld(usize),
    /// The broker answers the next message of a flight.
    Answer {
        relay: usize,
        flight: usize,
        answer: Answer,
    },
    /// All confirms of a flight have arrived.
    Confirm {
        relay: usize,
        flight: usize,
    },
    Settle(usize),
    /// It cannot renew its lease any more.
    NoticeLoss(usize),
    Crash(usize),
    /// The next message of a flight whose relay is gone reaches the broker.
    OrphanArrives(usize),
    /// What is left of it never does.
    OrphanIsDropped(usize),
}

pub(super) const NOTHING_IS_LOST: &str = "nothing is lost";
pub(super) const PASSED: &str = "the cursor passes only what is delivered or held";
pub(super) const IN_ORDER: &str = "first deliveries of a key are in order";
pub(super) const NEVER_BACK: &str = "the cursor never goes back";

impl Relays {
    fn count(&self) -> i64 {
        self.keys.len() as i64
    }

    fn open(&self, log: &Log) -> Open {
        log.open(self.keys, self.ordering, WAVE)
    }

    fn keys_of(&self, held: &BTreeSet<i64>) -> BTreeSet<char> {
        held.iter().filter_map(|seq| key(self.keys, *seq)).collect()
    }

    /// The first of each key, and those without a key.
    fn due(&self, world: &World) -> Vec<i64> {
        let mut seen = BTreeSet::new();
        world.held.iter().copied().filter(|seq| key(self.keys, *seq).is_none_or(|key| seen.insert(key))).collect()
    }

    /// What a relay that has the lane, or believes so, may do next.
    fn actions_of(&self, world: &World, relay: usize, actions: &mut Vec<Action>) {
        let it = &world.relays[relay];
        if it.epoch != Some(world.epoch) {
            actions.push(Action::NoticeLoss(relay));
        }
        for (flight, at) in it.flights.iter().enumerate() {
            if at.is_answered() {
                actions.push(Action::Confirm { relay, flight });
                continue;
            }
            actions.push(Action::Answer { relay, flight, answer: Answer::Ack });
            if world.refusals < self.refusals {
                let refusals = [Answer::Nack, Answer::Return];
                actions.extend(refusals.map(|answer| Action::Answer { relay, flight, answer }));
            }
        }
        // Held messages have the window, and the relay, to themselves.
        if it.flights.iter().any(|flight| flight.wave.is_none()) {
            return;
        }
        if it.log.is_empty() && it.flights.is_empty() && it.has_held && !world.held.is_empty() {
            actions.push(Action::RetryHeld(relay));
        }
        if self.launch(&mut it.clone(), &mut Vec::new()) {
            actions.push(Action::Launch(relay));
        }
        if self.open(&it.log).settle().is_some() {
            actions.push(Action::Settle(relay));
        }
    }

    /// Whether there was anything to do.
    fn launch(&self, it: &mut Relay, orphans: &mut Vec<Flight>) -> bool {
        let mut open = self.open(&it.log);
        while it.read < self.count() && (open.window.pending() as i64) < self.page / 2 {
            let seqs: Vec<i64> = (it.read + 1..=self.count().min(it.read + self.page)).collect();
            it.read += seqs.len() as i64;
            open.push(seqs, it.held_keys.clone());
        }
        let idle = (0..CHANNELS).filter(|channel| it.flights.iter().all(|flight| flight.channel != *channel));
        for channel in idle.collect::<Vec<_>>() {
            let Some((wave, seqs)) = open.take_wave(channel) else { continue };
            let flight = Flight { wave: Some(wave), channel, seqs, answers: Vec::new() };
            if self.mistake == Some(Mistake::MovesBeforeTheConfirm) {
                open.judge(wave, vec![true; flight.seqs.len()]);
                orphans.push(flight);
            } else {
                it.flights.push(flight);
            }
        }
        let log = open.close();
        let has_changed = log != it.log;
        it.log = log;
        has_changed
    }

    fn confirm(&self, world: &mut World, relay: usize, flight: usize) {
        let it = &mut world.relays[relay];
        let flight = it.flights.remove(flight);
        let published = flight.verdicts(self.keys, self.mistake);
        if let Some(wave) = flight.wave {
            let mut open = self.open(&it.log);
            open.judge(wave, published);
            it.log = open.close();
        } else if self.may_write(world, relay) {
            flight.seqs.iter().zip(published).filter(|(_, published)| *published).for_each(|(seq, _)| {
                world.held.remove(seq);
            });
            self.reload_held(world, relay);
        }
    }

    /// Moves the cursor past every page that is settled.
    fn settle(&self, world: &mut World, relay: usize) {
        let mut open = self.open(&world.relays[relay].log);
        while let Some((page, left)) = open.settle() {
            if !self.may_write(world, relay) {
                return;
            }
            let held: Vec<i64> = unpublished(&page, &left).iter().map(|held| held.message.seq).collect();
            let cursor = page.messages.last().map_or(0, |message| message.seq);
            world.went_back |= cursor < world.cursor;
            world.cursor = cursor;
            let it = &mut world.relays[relay];
            it.has_held |= !held.is_empty();
            it.held_keys.extend(held.iter().filter_map(|seq| key(self.keys, *seq)));
            world.held.extend(held);
        }
        world.relays[relay].log = open.close();
    }

    /// Every write is guarded by the epoch; a relay that finds another there starts anew.
    fn may_write(&self, world: &mut World, relay: usize) -> bool {
        let may = world.relays[relay].epoch == Some(world.epoch) || self.mistake == Some(Mistake::MovesUnguarded);
        if !may {
            world.end_session(relay);
        }
        may
    }

    fn reload_held(&self, world: &mut World, relay: usize) {
        world.relays[relay].held_keys = self.keys_of(&world.held);
        world.relays[relay].has_held = !world.held.is_empty();
    }
}

impl World {
    fn end_session(&mut self, relay: usize) {
        let it = std::mem::take(&mut self.relays[relay]);
        self.orphans.extend(it.flights.into_iter().filter(|flight| !flight.is_answered()));
    }

    fn deliver(&mut self, seq: i64) {
        if !self.queue.contains(&seq) {
            self.queue.push(seq);
        }
    }
}

impl Model for Relays {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World {
            epoch: 0,
            owner: None,
            owner_has_died: false,
            cursor: 0,
            went_back: false,
            held: BTreeSet::new(),
            relays: vec![Relay::default(); self.how_many],
            orphans: Vec::new(),
            queue: Vec::new(),
            lapses: 0,
            crashes: 0,
            refusals: 0,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        for relay in 0..self.how_many {
            if world.relays[relay].epoch.is_some() {
                self.actions_of(world, relay, actions);
                if world.crashes < self.crashes {
                    actions.push(Action::Crash(relay));
                }
            } else if world.owner.map_or(relay == 0, |_| world.owner_has_died || world.lapses < self.lapses) {
                // The first is the first, whichever it is.
                actions.push(Action::TakeOver(relay));
            }
        }
        for orphan in 0..world.orphans.len() {
            actions.extend([Action::OrphanArrives(orphan), Action::OrphanIsDropped(orphan)]);
        }
    }

    fn next_state(&self, before: &World, action: Action) -> Option<World> {
        let mut world = before.clone();
        match action {
            Action::TakeOver(relay) => {
                world.lapses += u8::from(world.owner.is_some() && !world.owner_has_died);
                world.epoch += 1;
                (world.owner, world.owner_has_died) = (Some(relay), false);
                world.relays[relay] = Relay { epoch: Some(world.epoch), read: world.cursor, ..Relay::default() };
                self.reload_held(&mut world, relay);
            }
            Action::Launch(relay) => _ = self.launch(&mut world.relays[relay], &mut world.orphans),
            Action::RetryHeld(relay) => {
                let flight = Flight { wave: None, channel: 0, seqs: self.due(&world), answers: Vec::new() };
                world.relays[relay].flights.push(flight);
            }
            Action::Answer { relay, flight, answer } => {
                let at = &mut world.relays[relay].flights[flight];
                let seq = at.seqs[at.answers.len()];
                at.answers.push(answer);
                if answer == Answer::Ack {
                    world.deliver(seq);
                } else {
                    world.refusals += 1;
                }
            }
            Action::Confirm { relay, flight } => self.confirm(&mut world, relay, flight),
            Action::Settle(relay) => self.settle(&mut world, relay),
            Action::NoticeLoss(relay) => world.end_session(relay),
            Action::Crash(relay) => {
                world.owner_has_died |= world.relays[relay].epoch == Some(world.epoch);
                world.crashes += 1;
                world.end_session(relay);
            }
            Action::OrphanArrives(orphan) => {
                let mut flight = world.orphans.remove(orphan);
                let seq = flight.seqs[flight.answers.len()];
                flight.answers.push(Answer::Ack);
                world.deliver(seq);
                if !flight.is_answered() {
                    world.orphans.insert(orphan, flight);
                }
            }
            Action::OrphanIsDropped(orphan) => {
                world.orphans.remove(orphan);
            }
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(NOTHING_IS_LOST, |model: &Self, world: &World| {
                world.queue.len() == model.keys.len() || {
                    let mut actions = Vec::new();
                    model.actions(world, &mut actions);
                    !actions.is_empty()
                }
            }),
            Property::always(PASSED, |_, world: &World| {
                (1..=world.cursor).all(|seq| world.queue.contains(&seq) || world.held.contains(&seq))
            }),
            Property::always(IN_ORDER, |model: &Self, world: &World| {
                let key = |seq: &i64| key(model.keys, *seq);
                let is_early = |later: &i64, seq: &i64| seq < later && key(seq) == key(later) && key(seq).is_some();
                (0..world.queue.len()).all(|at| !world.queue[at..].iter().any(|seq| is_early(&world.queue[at], seq)))
            }),
            Property::always(NEVER_BACK, |_, world: &World| !world.went_back),
            Property::sometimes("a message is held, if the broker refuses any", |model: &Self, world: &World| {
                model.refusals == 0 || !world.held.is_empty()
            }),
        ]
    }
}
