//! What the parameters receive.

use syn::{Error, FnArg, Ident};

use super::alternates::Alternate;
use super::{choices, step_names};
use crate::model::{Body, Kind, Param, Saga, Source};
use crate::sink::Sink;

/// The first parameter fits the kind of an async body; of a compensation (`kind` is `None`) it decides the kind.
pub(super) fn capability(saga: &Saga, body: &Body, kind: Option<Kind>, what: &str, sink: &mut Sink) {
    let is_plain = kind.map_or(body.is_plain(), Kind::waits);
    if !body.sound || is_plain {
        return;
    }
    let name = body.name();
    let fits = body.capability.as_ref().is_some_and(|given| {
        let is_data = |name: &Ident| saga.source(name).is_some();
        kind.is_none_or(|kind| kind == given.kind) && !given.name.as_ref().is_some_and(is_data)
    });
    if fits {
        return;
    }
    let message = match kind {
        Some(kind) => format!("a {what} receives {} first, after `&self`", kind.capability()),
        None => format!(
            "`{name}` receives {} or {} first, after `&self`: that says how it undoes",
            Kind::Tx.capability(),
            Kind::Call.capability()
        ),
    };
    sink.push(match body.signature.inputs.get(1) {
        Some(FnArg::Typed(given)) => Error::new_spanned(&given.ty, message),
        _ => Error::new(name.span(), message),
    });
}

/// Whose body it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Step,
    Compensation,
    Probe,
    Upcast,
}

/// What is known where a body of this step runs.
pub(super) struct Scope<'a> {
    pub(super) saga: &'a Saga,
    /// The oldest version of the saga that is carried on, if that is known.
    pub(super) since: Option<u32>,
    pub(super) step: usize,
    /// What comes before it.
    pub(super) ancestors: &'a [bool],
    pub(super) alternates: &'a [Alternate],
}

impl Scope<'_> {
    pub(super) fn check(&self, role: Role, param: &Param, sink: &mut Sink) {
        let (name, step) = (&param.name, &self.saga.steps[self.step]);
        match self.saga.source(name) {
            Some(Source::Item) if step.args.for_each.is_none() => {
                if step.args.sound {
                    let step = step.body.name();
                    sink.at(
                        name.span(),
                        format!(
                            "`item` is one of a list, and `{step}` runs once; add `for_each = input.…` to `{step}`"
                        ),
                    );
                }
            }
            Some(Source::Input | Source::Item) => self.check_plain(role, param, sink),
            Some(Source::Step(own)) if own == self.step && role == Role::Compensation => {}
            Some(Source::Step(earlier)) if self.ancestors[earlier] => {
                if let Some(given_up) = self.given_up(earlier) {
                    let stands = self.saga.steps[given_up.step].body.name();
                    let instead = self.saga.steps[given_up.end].body.name();
                    sink.at(
                        name.span(),
                        format!("`{name}` may have been given up for `{instead}`; receive `{stands}`, which stands for either"),
                    );
                    return;
                }
                match self.may_lack_output(earlier) {
                    Some(true) if !param.optional => sink.at(name.span(), self.lacking(earlier)),
                    Some(false) => self.check_plain(role, param, sink),
                    _ => {}
                }
            }
            found => self.reject(role, name, found, sink),
        }
    }

    fn check_plain(&self, role: Role, param: &Param, sink: &mut Sink) {
        let (name, step) = (&param.name, self.saga.steps[self.step].body.name());
        if !param.optional {
            return;
        }
        sink.at(
            name.span(),
            match role {
                Role::Compensation => {
                    format!(
                        "only the outcome of `{step}` itself can be unknown here; receive `{name}` by plain reference"
                    )
                }
                _ => format!("a step receives what surely ran before it, so `{name}` is a plain reference"),
            },
        );
    }

    /// The alternate for which `earlier` may have been undone when this step runs.
    fn given_up(&self, earlier: usize) -> Option<&Alternate> {
        self.alternates.iter().find(|alternate| {
            let is_inside = alternate.primary.contains(&earlier) && earlier != alternate.step;
            is_inside && !alternate.primary.contains(&self.step)
        })
    }

    /// `None` if it is not known.
    fn may_lack_output(&self, step: usize) -> Option<bool> {
        let step = &self.saga.steps[step];
        let since = self.since.or(step.args.since.is_none().then_some(0))?;
        step.args.sound.then(|| step.may_lack_output(since))
    }

    fn lacking(&self, step: usize) -> String {
        let step = &self.saga.steps[step];
        let name = step.body.name();
        if step.args.skippable.is_some() {
            format!("`{name}` may be skipped; receive it as `Option<&T>`")
        } else {
            format!("sagas that are older than `{name}` lack it; receive it as `Option<&T>`, or give it an `upcast`")
        }
    }

    fn reject(&self, role: Role, name: &Ident, found: Option<Source>, sink: &mut Sink) {
        let step = self.saga.steps[self.step].body.name();
        let message = match (role, found) {
            (Role::Compensation, _) => {
                let readable = step_names(&self.saga.steps).enumerate();
                let readable = readable.filter(|(i, _)| *i == self.step || self.ancestors[*i]).map(|(_, name)| name);
                let known = choices("steps that the compensation can receive", readable);
                format!("`{name}` is neither `input`, nor `{step}`, nor a step that surely ran before it; {known}")
            }
            (Role::Step, Some(Source::Step(earlier))) if earlier < self.step => {
                format!(
                    "`{name}` may not have run when `{step}` does; add `after = {name}` (or `after = [..]`) to `{step}`"
                )
            }
            (Role::Step, _) => {
                let known = choices("steps before it", step_names(&self.saga.steps[..self.step]));
                format!("`{name}` is neither `input` nor a step before `{step}`; {known}")
            }
            (Role::Probe | Role::Upcast, _) => {
                let readable = step_names(&self.saga.steps).enumerate();
                let readable = readable.filter(|(i, _)| self.ancestors[*i]).map(|(_, name)| name);
                let known = choices("steps before it", readable);
                format!("`{name}` is neither `input` nor a step that surely ran before `{step}`; {known}")
            }
        };
        sink.at(name.span(), message);
    }
}
