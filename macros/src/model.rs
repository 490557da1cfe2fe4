//! A saga as it was written, before anything about it has been checked.

use std::time::Duration;

use proc_macro2::Span;

use syn::ext::IdentExt;
use syn::{Generics, Ident, LitStr, Path, Signature, Type};

pub(crate) struct Saga {
    pub(crate) generics: Generics,
    pub(crate) self_ty: Type,
    /// The names of the block's own constants.
    pub(crate) constants: Vec<Ident>,
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
#[derive(Default)]
pub(crate) struct StepArgs {
    pub(crate) kind: Option<Kind>,
    pub(crate) compensate: Option<Compensate>,
    pub(crate) pivot: Option<Span>,
    pub(crate) after: Option<Vec<Ident>>,
    pub(crate) retry: Option<Retry>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) name: Option<LitStr>,
    /// Nothing in it was mistaken, so that what is missing was left out on purpose.
    pub(crate) sound: bool,
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
    /// The first parameter after `self`; `None` if it is neither `&T` nor `&mut T`.
    pub(crate) capability: Option<Capability>,
    pub(crate) params: Vec<Param>,
    /// Nothing in the signature was mistaken.
    pub(crate) sound: bool,
}

/// `tx: &mut T` or `call: &T`.
pub(crate) struct Capability {
    pub(crate) kind: Kind,
    /// What the reference refers to.
    pub(crate) ty: Type,
    /// The parameter's name, if it has one.
    pub(crate) name: Option<Ident>,
}

impl Step {
    /// The name under which it is recorded.
    pub(crate) fn recorded_name(&self) -> String {
        self.args.name.as_ref().map_or_else(|| self.body.name().unraw().to_string(), LitStr::value)
    }
}

impl Saga {
    pub(crate) fn bodies(&self) -> impl Iterator<Item = &Body> {
        self.steps.iter().map(|step| &step.body).chain(self.compensations.iter().map(|undo| &undo.body))
    }

    /// The transaction type of the tx bodies, which validation has found to be one.
    pub(crate) fn tx(&self) -> Option<&Type> {
        self.bodies()
            .filter_map(|body| body.capability.as_ref())
            .find(|given| given.kind == Kind::Tx)
            .map(|given| &given.ty)
    }
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

impl Param {
    /// It is a view, such as `&str` of a `String`: read as what was recorded, and then lent.
    pub(crate) fn is_view(&self) -> bool {
        match &self.ty {
            Type::Slice(_) => true,
            Type::Path(path) => path.path.is_ident("str"),
            _ => false,
        }
    }
}
