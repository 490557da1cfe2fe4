//! The services that a saga calls, and the network between.

use std::collections::BTreeSet;

/// What a service knows of its part in the saga, under the idempotency key of the step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Effect {
    None,
    Live,
    /// A tombstone, too, if there was nothing to undo.
    Undone,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Services {
    /// One service a step.
    pub(crate) effects: [Effect; 2],
    /// Requests whose sender has given up waiting, by step. They arrive at any time, or never.
    pub(crate) late: BTreeSet<usize>,
}

impl Services {
    pub(crate) fn new() -> Self {
        Self { effects: [Effect::None; 2], late: BTreeSet::new() }
    }

    /// A request is carried out once; `false` says that the step has been undone, and so never will be.
    pub(crate) fn carry_out(&mut self, step: usize) -> bool {
        match self.effects[step] {
            Effect::None | Effect::Live => {
                self.effects[step] = Effect::Live;
                true
            }
            Effect::Undone => false,
        }
    }

    pub(crate) fn undo(&mut self, step: usize, leaves_tombstone: bool) {
        if self.effects[step] == Effect::Live || leaves_tombstone {
            self.effects[step] = Effect::Undone;
        }
    }
}
