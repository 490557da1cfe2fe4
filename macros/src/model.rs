//! A saga as it was written, before anything about it has been checked.

use std::time::Duration;

use proc_macro2::Span;

use syn::{Generics, Ident, LitStr, Path, Signature, Type};

pub(crate) struct Saga {
    pub(crate) args: SagaArgs,
    pub(crate) generics: Generics,
    pub(crate) self_ty: Type,
    pub(crate) steps: Vec<Step>,
    pub(crate) compensations: Vec<Undo>,
}

/// `#[saga(…)]`.
pub(crate) struct SagaArgs {
    pub(crate) name: LitStr,
    pub(crate) version: u32,
    pub(crate) input: Type,
    pub(crate) krate: Path,
}

pub(crate) struct Step {
    pub(crate) args: StepArgs,
    pub(crate) body: Body,
}

pub(crate) struct Undo {
    pub(crate) args: UndoArgs,
    pub(crate) body: Body,
}

/// `#[step(…)]`.
pub(crate) struct StepArgs {
    pub(crate) kind: Kind,
    pub(crate) compensate: Option<Compensate>,
    pub(crate) pivot: Option<Span>,
    pub(crate) after: Option<Vec<Ident>>,
    pub(crate) retry: Option<Retry>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) name: Option<LitStr>,
}

/// `#[compensate(…)]`.
#[derive(Default)]
pub(crate) struct UndoArgs {
    pub(crate) retry: Option<Retry>,
    pub(crate) timeout: Option<Duration>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Tx,
    Call,
}

impl Kind {
    pub(crate) fn capability(self) -> &'static str {
        match self {
            Self::Tx => "`&mut StepTx`",
            Self::Call => "`&Call`",
        }
    }

    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Tx => "tx",
            Self::Call => "call",
        }
    }
}

pub(crate) enum Compensate {
    /// `compensate = none`
    None,
    By(Ident),
}

/// `retry(…)`; what is not written keeps the default.
#[derive(Default, Clone, Copy)]
pub(crate) struct Retry {
    pub(crate) attempts: Option<Attempts>,
    pub(crate) backoff: Option<(Duration, Duration)>,
}

/// `attempts = 8` or `attempts = forever`.
#[derive(Clone, Copy)]
pub(crate) enum Attempts {
    Most(u32),
    Forever,
}

/// A method that is a step's or a compensation's body.
pub(crate) struct Body {
    pub(crate) signature: Signature,
    /// The kind and the type of the first parameter after `self`; `None` if it is neither `&T` nor `&mut T`.
    pub(crate) capability: Option<(Kind, Type)>,
    pub(crate) params: Vec<Param>,
}

impl Body {
    pub(crate) fn name(&self) -> &Ident {
        &self.signature.ident
    }
}

/// A parameter after the capability: `input` or the name of a step.
pub(crate) struct Param {
    pub(crate) name: Ident,
    /// What the reference refers to.
    pub(crate) ty: Type,
    /// It is `Option<&T>`.
    pub(crate) optional: bool,
}
