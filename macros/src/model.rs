//! A saga as it was written, before anything about it has been checked.

use std::time::Duration;

use proc_macro2::Span;

use syn::ext::IdentExt;
use syn::{Generics, Ident, LitStr, Path, ReturnType, Signature, Type};

pub(crate) struct Saga {
    pub(crate) generics: Generics,
    pub(crate) self_ty: Type,
    /// The names of the block's own constants.
    pub(crate) constants: Vec<Ident>,
    pub(crate) steps: Vec<Step>,
    pub(crate) compensations: Vec<Helper>,
    pub(crate) probes: Vec<Helper>,
    pub(crate) upcasts: Vec<Helper>,
}

/// `#[saga(…)]`.
pub(crate) struct SagaArgs {
    pub(crate) name: LitStr,
    pub(crate) version: u32,
    pub(crate) since: u32,
    pub(crate) input: Type,
    pub(crate) deadline: Option<Duration>,
    pub(crate) concurrency: Option<u32>,
    pub(crate) schedule: Option<Schedule>,
    pub(crate) krate: Path,
}

/// When a saga starts by itself.
pub(crate) enum Schedule {
    Every(Duration),
    Cron(LitStr),
}

pub(crate) struct Step {
    pub(crate) args: StepArgs,
    pub(crate) body: Body,
}

/// What a step names: a compensation, a probe or an upcast.
pub(crate) struct Helper {
    pub(crate) args: HelperArgs,
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
    pub(crate) delay: Option<Duration>,
    pub(crate) skippable: Option<Span>,
    pub(crate) savepoint: Option<Span>,
    pub(crate) alternate: Option<Ident>,
    pub(crate) probe: Option<Ident>,
    pub(crate) upcast: Option<Ident>,
    pub(crate) since: Option<(u32, Span)>,
    pub(crate) early: Option<Span>,
    pub(crate) for_each: Option<Over>,
    pub(crate) concurrency: Option<(u32, Span)>,
    /// Nothing in it was mistaken, so that what is missing was left out on purpose.
    pub(crate) sound: bool,
}

/// `#[compensate(…)]` and `#[probe(…)]`.
#[derive(Default)]
pub(crate) struct HelperArgs {
    pub(crate) retry: Option<Retry>,
    pub(crate) timeout: Option<Duration>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Tx,
    Call,
    Request,
    Signal,
    Child,
}

impl Kind {
    pub(crate) fn of(word: &str) -> Option<Self> {
        [Self::Tx, Self::Call, Self::Request, Self::Signal, Self::Child].into_iter().find(|kind| kind.key() == word)
    }

    /// Its body only says what it begins: it is a plain `fn` without a capability.
    pub(crate) fn waits(self) -> bool {
        matches!(self, Self::Request | Self::Signal | Self::Child)
    }

    /// The first parameter of its body.
    pub(crate) fn capability(self) -> &'static str {
        if self == Self::Tx { "`&mut StepTx`" } else { "`&Call`" }
    }

    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Tx => "tx",
            Self::Call => "call",
            Self::Request => "request",
            Self::Signal => "signal",
            Self::Child => "child",
        }
    }
}

pub(crate) enum Compensate {
    /// `compensate = none`
    None,
    By(Ident),
}

/// `input.lines`, `reserve` or `reserve.items`: where a list is.
pub(crate) struct Over {
    pub(crate) root: Ident,
    pub(crate) fields: Vec<Ident>,
}

/// `retry(…)`; what is not written keeps the default.
#[derive(Default, Clone, Copy)]
pub(crate) struct Retry {
    pub(crate) attempts: Option<Attempts>,
    pub(crate) backoff: Option<(Duration, Duration)>,
    pub(crate) jitter: Option<u8>,
    pub(crate) budget: Option<Duration>,
}

/// `attempts = 8` or `attempts = forever`.
#[derive(Clone, Copy)]
pub(crate) enum Attempts {
    Most(u32),
    Forever,
}

/// A method that is the body of a step, or of what a step names.
pub(crate) struct Body {
    pub(crate) signature: Signature,
    /// The first parameter after `self` of an async body; `None` if it is neither `&T` nor `&mut T`.
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

/// What a parameter's name stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Input,
    /// One item of the list that the step runs for.
    Item,
    Step(usize),
}

impl Step {
    /// The name under which it is recorded.
    pub(crate) fn recorded_name(&self) -> String {
        self.args.name.as_ref().map_or_else(|| self.body.name().unraw().to_string(), LitStr::value)
    }

    /// The saga may be past it without an output: it was skipped, or is newer than the saga. `since` is the oldest version
    /// of the saga that is carried on.
    pub(crate) fn may_lack_output(&self, since: u32) -> bool {
        let is_newer = self.args.since.is_some_and(|(brought, _)| brought > since);
        self.args.skippable.is_some() && self.args.for_each.is_none() || is_newer && self.args.upcast.is_none()
    }
}

impl Saga {
    pub(crate) fn bodies(&self) -> impl Iterator<Item = &Body> {
        let helpers = self.compensations.iter().chain(&self.probes).chain(&self.upcasts);
        self.steps.iter().map(|step| &step.body).chain(helpers.map(|helper| &helper.body))
    }

    /// The transaction type of the tx bodies, which validation has found to be one.
    pub(crate) fn tx(&self) -> Option<&Type> {
        self.bodies()
            .filter_map(|body| body.capability.as_ref())
            .find(|given| given.kind == Kind::Tx)
            .map(|given| &given.ty)
    }

    pub(crate) fn find(&self, step: &Ident) -> Option<usize> {
        self.steps.iter().position(|it| it.body.name() == step)
    }

    pub(crate) fn source(&self, name: &Ident) -> Option<Source> {
        match name {
            name if name == "input" => Some(Source::Input),
            name if name == "item" => Some(Source::Item),
            name => self.find(name).map(Source::Step),
        }
    }
}

impl Body {
    pub(crate) fn name(&self) -> &Ident {
        &self.signature.ident
    }

    pub(crate) fn is_plain(&self) -> bool {
        self.signature.asyncness.is_none()
    }

    /// How a compensation undoes.
    pub(crate) fn undo_kind(&self) -> Kind {
        match &self.capability {
            Some(given) => given.kind,
            None => Kind::Request,
        }
    }

    pub(crate) fn returned(&self) -> Option<&Type> {
        match &self.signature.output {
            ReturnType::Default => None,
            ReturnType::Type(_, ty) => Some(ty),
        }
    }
}

/// A parameter after the capability: `input`, `item` or the name of a step.
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
