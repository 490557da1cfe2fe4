//! What may happen next, and how much of it is left.

use crate::definition::{Step, StepKind};
use crate::machine::Phase;

/// What becomes of a call that times out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effect {
    /// The request was lost: it never takes effect.
    Absent,
    /// It took effect, and the answer was lost.
    Present,
    /// It takes effect later: perhaps after it was undone.
    Late,
}

impl Effect {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Absent, Self::Present, Self::Late];
}

/// How many faults of each kind may still happen.
#[expect(clippy::struct_field_names, reason = "each is called as its option is")]
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Faults {
    pub(super) rejections: u32,
    pub(super) crashes: u32,
    pub(super) zombies: u32,
    pub(super) transients: u32,
    pub(super) unknowns: u32,
    pub(super) effects: Vec<Effect>,
    pub(super) compensation_faults: u32,
    pub(super) stuck_compensations: u32,
    pub(super) duplicates: u32,
}

impl Faults {
    pub(super) const NONE: Self = Self {
        rejections: 0,
        crashes: 0,
        zombies: 0,
        transients: 0,
        unknowns: 0,
        effects: Vec::new(),
        compensation_faults: 0,
        stuck_compensations: 0,
        duplicates: 0,
    };
}

/// How an attempt goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum How {
    /// As its body says.
    AsIs,
    /// The request arrives twice.
    Twice,
    /// It is told no, without any effect.
    Reject,
    /// It fails without any effect, and is tried again.
    Fail,
    /// It fails after it took effect, and is tried again.
    FailAfter,
    /// No answer comes, and there is no other attempt.
    TimeOut(Effect),
    /// The compensation fails for the last time, without any effect.
    GiveUp,
    /// The worker dies before the commit of the transaction.
    DieBeforeCommit,
}

impl How {
    /// What comes of it is recorded by a move of its own.
    pub(super) fn is_in_hand(self, body: StepKind) -> bool {
        matches!(self, Self::AsIs | Self::Twice) && body != StepKind::Tx
    }
}

/// How a request reaches its participant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    Once,
    Twice,
    /// The participant says no, without any effect.
    Refused,
}

/// One step of a schedule. Indices are into the simulation as it is before the move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Move {
    /// An attempt takes effect. What is not the end of a call is recorded at once, and the worker may die right after.
    Run { saga: usize, flight: usize, how: How, dies: bool },
    /// What came of a call is recorded, and the worker may die before it knows.
    Record { saga: usize, flight: usize, dies: bool },
    /// The worker dies, and another one takes over.
    Die,
    /// The worker is taken for dead and is not: what it was about to do still arrives.
    Stop,
    /// What a stopped worker or a lost request was about to do takes effect.
    Land(usize),
    /// A request reaches its participant.
    Deliver { request: usize, how: Arrival },
    /// A reply comes home.
    Reply(usize),
    /// A signal comes.
    Signal { saga: usize, signal: usize },
    /// Time passes until something is due.
    Wait,
    /// The same, before something came that could have come in time.
    WaitInVain,
}

impl Move {
    /// How many faults it has.
    pub(super) fn faults(&self) -> u32 {
        match self {
            Self::Run { how, dies, .. } => u32::from(*how != How::AsIs) + u32::from(*dies),
            Self::Record { dies, .. } => u32::from(*dies),
            Self::Deliver { how, .. } => u32::from(*how != Arrival::Once),
            Self::Die | Self::Stop | Self::WaitInVain => 1,
            Self::Land(_) | Self::Reply(_) | Self::Signal { .. } | Self::Wait => 0,
        }
    }
}

impl Faults {
    /// How an attempt may go.
    pub(super) fn ways(&self, step: &Step, kind: StepKind, phase: Phase, past_pivot: bool) -> Vec<How> {
        let (is_call, forward) = (kind == StepKind::Call, phase == Phase::Forward);
        let mut ways = vec![How::AsIs];
        let mut allow = |how, is_so: bool| {
            if is_so {
                ways.push(how);
            }
        };
        allow(How::Reject, forward && self.rejections > 0 && !past_pivot);
        allow(How::Fail, phase != Phase::Undo && self.transients > 0);
        allow(How::Fail, phase == Phase::Undo && self.compensation_faults > 0);
        allow(How::FailAfter, phase == Phase::Undo && is_call && self.compensation_faults > 0);
        allow(How::GiveUp, phase == Phase::Undo && self.stuck_compensations > 0);
        allow(How::Twice, is_call && phase != Phase::Probe && self.duplicates > 0);
        allow(How::DieBeforeCommit, kind == StepKind::Tx && self.crashes > 0);
        for effect in &self.effects {
            // Past the pivot it is tried until it succeeds.
            let gives_up = step.retry.attempts.is_some() || !past_pivot;
            allow(How::TimeOut(*effect), forward && is_call && self.unknowns > 0 && gives_up);
        }
        ways
    }

    /// Uses up what the attempt takes.
    pub(super) fn spend(&mut self, how: How, phase: Phase) {
        let left = match how {
            How::AsIs => return,
            How::Twice => &mut self.duplicates,
            How::Reject => &mut self.rejections,
            How::Fail | How::FailAfter if phase == Phase::Undo => &mut self.compensation_faults,
            How::Fail | How::FailAfter => &mut self.transients,
            How::TimeOut(_) => &mut self.unknowns,
            How::GiveUp => &mut self.stuck_compensations,
            How::DieBeforeCommit => &mut self.crashes,
        };
        *left = left.saturating_sub(1);
    }
}
