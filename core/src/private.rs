//! What the macros' output names. Not part of the public interface.

pub use std::borrow::{Cow, ToOwned};
pub use std::boxed::Box;
pub use std::time::Duration;
pub use std::vec::Vec;

pub use serde::{Serialize, de::DeserializeOwned};

use crate::Tick;
use crate::{
    Begin, Call, Child, Definition, Json, Message, Request, Saga, Schedule, Signal, Step, StepError, StepResult,
};

/// A definition with options; in a constant no field with a destructor may be replaced.
pub const fn definition(
    name: &'static str,
    version: u32,
    since: u32,
    deadline: Option<Duration>,
    concurrency: Option<u32>,
    schedule: Option<Scheduled>,
    steps: &'static [Step],
) -> Definition {
    let schedule = match schedule {
        Some(Scheduled::Every(every)) => Some(Schedule::Every(every)),
        Some(Scheduled::Cron(line)) => Some(Schedule::Cron(Cow::Borrowed(line))),
        None => None,
    };
    let steps = Cow::Borrowed(steps);
    Definition { name: Cow::Borrowed(name), version, since, steps, deadline, schedule, concurrency }
}

/// A [`Schedule`] that can be an argument of a constant function.
#[derive(Debug, Clone, Copy)]
pub enum Scheduled {
    /// So often.
    Every(Duration),
    /// By a cron line.
    Cron(&'static str),
}

/// What a saga is started with that starts by itself.
#[diagnostic::on_unimplemented(
    message = "a saga that starts by itself is started with what is made of an `amends::Tick`, and `{Self}` is not",
    label = "implement `From<amends::Tick>` for it, or take `amends::Tick` itself"
)]
pub trait OfTick {
    /// The input for that time.
    fn of_tick(tick: Tick) -> Self;
}

#[diagnostic::do_not_recommend]
impl<T: From<Tick>> OfTick for T {
    fn of_tick(tick: Tick) -> Self {
        tick.into()
    }
}

/// What a step's method returns when it succeeds.
#[diagnostic::on_unimplemented(
    message = "a step returns `StepResult<T>`, not `{Self}`",
    label = "this is what the step returns",
    note = "any error that implements `std::error::Error` becomes a `StepError`; `StepError::retry` makes one of a text"
)]
pub trait StepOutput {
    /// The `T` of `StepResult<T>`.
    type Output;

    /// The `StepResult<T>` itself.
    fn settled(self) -> StepResult<Self::Output>;
}

#[diagnostic::do_not_recommend]
impl<T, E: Into<StepError>> StepOutput for Result<T, E> {
    type Output = T;

    fn settled(self) -> StepResult<T> {
        self.map_err(Into::into)
    }
}

/// The type `Self` itself, so that a mismatch is one error on the parameter.
#[diagnostic::on_unimplemented(
    message = "this parameter receives `{Self}`, not `{Given}`",
    label = "what is recorded is of type `{Self}`"
)]
pub trait Same<Given: ?Sized> {}

impl<T: ?Sized> Same<T> for T {}

/// Compiles if the types are the same.
pub fn is_same<Recorded: ?Sized + Same<Given>, Given: ?Sized>() {}

/// A list, as it is recorded: an array of `Item`s. `How` says why it is one, so that an `Option` is the list inside of it and
/// no list of one list.
#[diagnostic::on_unimplemented(
    message = "`item` is one of a list, and `{Self}` is no list of `{Item}`",
    label = "the step runs for every item of a `{Self}`",
    note = "a list is what can be iterated by reference, such as a `Vec`, a slice or a set, or an `Option` of that"
)]
pub trait ListOf<Item, How> {}

/// See [`ListOf`].
#[derive(Debug)]
pub struct ByReference;

/// See [`ListOf`].
#[derive(Debug)]
pub struct Within<How>(How);

#[diagnostic::do_not_recommend]
impl<T, L: ?Sized> ListOf<T, ByReference> for L where for<'a> &'a L: IntoIterator<Item = &'a T> {}

#[diagnostic::do_not_recommend]
impl<T, How, L: ListOf<T, How>> ListOf<T, Within<How>> for Option<L> {}

#[diagnostic::do_not_recommend]
impl<T, How, L: ListOf<T, How> + ?Sized> ListOf<T, Within<How>> for std::sync::Arc<L> {}

#[diagnostic::do_not_recommend]
impl<T, How, L: ListOf<T, How> + ToOwned + ?Sized> ListOf<T, Within<How>> for Cow<'_, L> {}

/// The type of what a `for_each` step runs over, which only its path says.
#[derive(Debug)]
pub struct Over<List: ?Sized>(std::marker::PhantomData<fn(&List)>);

/// What is found at a path.
pub fn over<Root: ?Sized, List: ?Sized>(_path: fn(&Root) -> &List) -> Over<List> {
    Over(std::marker::PhantomData)
}

impl<List: ?Sized> Over<List> {
    /// Compiles if it is a list of such items.
    pub fn is_list_of<Item, How>(&self)
    where
        List: ListOf<Item, How>,
    {
    }
}

/// Encodes what a body returned.
///
/// # Errors
/// Returns [`StepError::Data`] if the store cannot hold it.
pub fn output<T: serde::Serialize>(value: &T) -> StepResult<Json> {
    Json::encode(value).map_err(StepError::Data)
}

/// Checks that an answer is what the step returns.
///
/// # Errors
/// Returns [`StepError::Data`] if it is not.
pub fn accepts<T: DeserializeOwned>(answer: &Json) -> StepResult<()> {
    answer.decode::<T>().map(drop).map_err(StepError::Data)
}

/// What the body of a request returns.
#[diagnostic::on_unimplemented(
    message = "what asks by a request returns `Request<Command, Reply>`, not `{Self}`",
    label = "this is what it returns",
    note = "or a `StepResult` of it"
)]
pub trait BeginsRequest {
    /// What the step returns once the reply has come.
    type Output;

    /// The request, or the error of the body.
    fn begin(self) -> StepResult<Begin>;
}

impl<M: Message, R: Serialize + DeserializeOwned> BeginsRequest for Request<M, R> {
    type Output = R;

    fn begin(self) -> StepResult<Begin> {
        self.into_begin()
    }
}

#[diagnostic::do_not_recommend]
impl<B: BeginsRequest, E: Into<StepError>> BeginsRequest for Result<B, E> {
    type Output = B::Output;

    fn begin(self) -> StepResult<Begin> {
        self.map_err(Into::into)?.begin()
    }
}

/// As [`BeginsRequest`].
#[diagnostic::on_unimplemented(
    message = "a `signal` step returns `Signal<T>`, not `{Self}`",
    label = "this is what it returns",
    note = "or a `StepResult` of it"
)]
pub trait BeginsSignal {
    /// What the step returns once the signal has come.
    type Output;

    /// That it waits, or the error of the body.
    fn begin(self) -> StepResult<Begin>;
}

impl<T: Serialize + DeserializeOwned> BeginsSignal for Signal<T> {
    type Output = T;

    fn begin(self) -> StepResult<Begin> {
        Ok(Begin::Listen)
    }
}

#[diagnostic::do_not_recommend]
impl<B: BeginsSignal, E: Into<StepError>> BeginsSignal for Result<B, E> {
    type Output = B::Output;

    fn begin(self) -> StepResult<Begin> {
        self.map_err(Into::into)?.begin()
    }
}

/// As [`BeginsRequest`]; it knows which saga it starts.
#[diagnostic::on_unimplemented(
    message = "a `child` step returns `Child<Saga>`, not `{Self}`",
    label = "this is what it returns",
    note = "or a `StepResult` of it"
)]
pub trait BeginsChild {
    /// What the saga that is started returns.
    type Output;

    /// Its name.
    const NAME: &'static str;

    /// The saga, or the error of the body.
    fn begin(self) -> StepResult<Begin>;
}

impl<G: Saga> BeginsChild for Child<G> {
    type Output = G::Output;

    const NAME: &'static str = match &G::DEFINITION.name {
        Cow::Borrowed(name) => name,
        Cow::Owned(_) => panic!("the name of a saga that is started as a step is a literal"),
    };

    fn begin(self) -> StepResult<Begin> {
        self.into_begin()
    }
}

#[diagnostic::do_not_recommend]
impl<C: BeginsChild, E: Into<StepError>> BeginsChild for Result<C, E> {
    type Output = C::Output;

    const NAME: &'static str = C::NAME;

    fn begin(self) -> StepResult<Begin> {
        self.map_err(Into::into)?.begin()
    }
}

/// The call that a probe is given, as a [`Capability`](crate::Capability) would hand it out.
#[derive(Debug)]
pub struct Called<'a>(pub &'a Call);

impl<'a> Called<'a> {
    /// The call.
    pub fn call(self) -> &'a Call {
        self.0
    }
}

/// What a probe finds: `Option<Recorded>`.
#[diagnostic::on_unimplemented(
    message = "this probe returns `StepResult<Option<{Recorded}>>`, not a `StepResult` of `{Self}`",
    label = "the step returns `{Recorded}`, and `None` says that it did not happen and will not"
)]
pub trait Found<Recorded> {
    /// The output of the step, if it happened.
    fn found(self) -> Option<Recorded>;
}

impl<T> Found<T> for Option<T> {
    fn found(self) -> Self {
        self
    }
}

/// Encodes what a probe found.
///
/// # Errors
/// Returns [`StepError::Data`] if the store cannot hold it.
pub fn found<Recorded: Serialize, F: Found<Recorded>>(found: F) -> StepResult<Option<Json>> {
    found.found().map(|value| output(&value)).transpose()
}

/// What an upcast makes up: `Recorded` itself.
#[diagnostic::on_unimplemented(
    message = "this upcast returns `StepResult<{Recorded}>`, not a `StepResult` of `{Self}`",
    label = "the step returns `{Recorded}`"
)]
pub trait MadeUp<Recorded> {
    /// The output of the step.
    fn made_up(self) -> Recorded;
}

impl<T> MadeUp<T> for T {
    fn made_up(self) -> T {
        self
    }
}

/// Encodes what an upcast made up.
///
/// # Errors
/// Returns the error of the body, or [`StepError::Data`] if the store cannot hold it.
pub fn made_up<Recorded: Serialize, R: StepOutput<Output: MadeUp<Recorded>>>(returned: R) -> StepResult<Json> {
    output(&returned.settled()?.made_up())
}

/// The type of the step in whose place an alternate is taken.
#[diagnostic::on_unimplemented(
    message = "an alternate returns what the step returns for which it stands: `{Self}`, not `{Given}`",
    label = "whoever reads that step receives `{Self}`"
)]
pub trait StoodFor<Given: ?Sized> {}

impl<T: ?Sized> StoodFor<T> for T {}

/// Compiles if the types are the same.
pub fn stands_for<Replaced: StoodFor<Given>, Given>() {}
