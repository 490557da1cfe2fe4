//! The macros of `amends`, which re-exports them: depend on `amends`, not on this crate.

mod args;
mod duration;
mod expand;
mod message;
mod model;
mod sink;
mod source;
mod validate;

use proc_macro::TokenStream;

/// Makes an `impl` block a saga: a graph of steps, each with the compensation that undoes it.
///
/// ```text
/// /// Reserves stock and takes the money; gives the stock back if the card is refused.
/// #[saga(name = "place-order", version = 1, input = Order)]
/// impl PlaceOrder {
///     #[step(tx, compensate = release)]
///     async fn reserve(&self, tx: &mut StepTx, input: &Order) -> StepResult<Reservation> { … }
///
///     #[step(call, pivot, retry(attempts = 8, backoff = "200ms..1m"), timeout = "10s")]
///     async fn charge(&self, call: &Call, input: &Order, reserve: &Reservation) -> StepResult<Payment> { … }
///
///     #[step(tx)]
///     async fn notify(&self, tx: &mut StepTx, charge: &Payment) -> StepResult<()> { … }
///
///     #[compensate]
///     async fn release(&self, tx: &mut StepTx, reserve: &Reservation) -> StepResult<()> { … }
/// }
/// ```
///
/// | key | meaning |
/// |---|---|
/// | `name = "…"` | the name under which it is stored; unique in the database |
/// | `version = 1` | counts up when the graph changes; old versions keep running beside the new one |
/// | `since = 1` | the oldest version whose sagas this one carries on; its own without it |
/// | `input = T` | what it is started with |
/// | `deadline = "1h"` | a saga that has not passed its pivot so long after its start is undone |
/// | `concurrency = 10` | so many go forward at once, in all workers together; those that wait or are undone do not count |
/// | `every = "5m"`, `cron = "0 3 * * *"` | it starts by itself, once for all workers, in UTC; its input is made of a `Tick` by `From` |
/// | `crate = "path"` | where `amends` is, if it was renamed |
///
/// Methods with [`#[step]`](macro@step) are the steps; methods with [`#[compensate]`](macro@compensate) undo them, those
/// with [`#[probe]`](macro@probe) find out whether they happened, those with [`#[upcast]`](macro@upcast) make up what older
/// sagas lack; all others are left alone. The block is emitted again as it is, so every method stays an ordinary method that a test
/// can call. The type implements `Saga` and `Steps` and gets
///
/// - `DEFINITION`, the graph, whose text has a line a step and is meant for a golden test;
/// - `key(…)` and `unkeyed()`, to start it with a business key or without one;
/// - a `StepRef` constant for each step, such as `CHARGE`, with the name under which it is recorded and the type of its
///   output, unless the block has a constant of that name.
///
/// Its `Output` is what its last step returns, the last in the source.
///
/// # The graph is in the signatures
///
/// Steps run in source order. `after = [a, b]` names other predecessors and `after = start` says that there are none;
/// what does not come after one another runs in parallel. After the capability, a parameter is `input` or the name of
/// an earlier step, by reference, and its type is what that step returns; a `String` may be received as `&str` and a
/// `Vec<T>` as `&[T]`. A step may read only what surely ran before it; what it may lack, such as the output of a
/// `skippable` step, it receives as `Option<&T>`.
///
/// In a step with `for_each`, and in its compensation and its probe, `item` is one item of the list. All others receive the
/// outputs of all items as `&[T]`; where the step is also `skippable`, as `&[Option<T>]`. The list is what can be iterated by
/// reference, such as a `Vec<T>` or a set, or an `Option` of that (without it the step fails), and `item` is its `&T`. It is
/// looked for in what is recorded, so its field is recorded under the name that it has in Rust; where it is not, let a step
/// return the list.
///
/// # Alternates
///
/// If a step with `alternate = other` fails, what happened since the last `savepoint` before it is undone, and the path
/// that ends in `other` is taken instead. The first step of that path stands behind the step it replaces in the source, so
/// it says what it comes after: `after = savepoint_step`. What goes on from either path names the replaced step, in
/// `after` and as a parameter: its output is then that of `other`, which is of the same type. Nothing else on the two paths
/// may be read from outside them.
///
/// # What it rejects
///
/// A parameter that names no earlier step, or one that may not have run; a step before the pivot without
/// `compensate = …`; a compensation, a savepoint or an alternate at or after the pivot; two pivots on a path; a method that
/// should be named by a step and is not, or by two; a capability of the wrong kind; two steps of one name; keys that it
/// does not know, or that do not go with the kind of the step. Each mistake gives one message, which names the valid
/// choices.
///
/// The block may have type parameters, as `impl<S: Store> PlaceOrder<S>` with `tx: &mut S::Tx`, which runs on every
/// store. It cannot have lifetimes or const parameters, and its steps cannot be generic or depend on `cfg`: what is
/// stored must mean the same to every process that reads it.
///
/// # Stability
///
/// The saga's name and version and the steps' names, kinds and edges are written to disk. Renaming a method renames its
/// step; give it `name = "…"` to keep the old name.
#[proc_macro_attribute]
pub fn saga(args: TokenStream, item: TokenStream) -> TokenStream {
    expand::saga(args.into(), item.into()).into()
}

/// Marks a step of a [`#[saga]`](macro@saga): an `async fn(&self, capability, …) -> StepResult<T>`, or, where it waits for an
/// answer, a plain `fn(&self, …)` that returns what it begins, or a `StepResult` of that.
///
/// | key | meaning |
/// |---|---|
/// | `tx` | the body gets `&mut StepTx`: its writes, its messages and its record commit at once |
/// | `call` | the body gets `&Call`: it runs at least once, under one idempotency key |
/// | `request` | returns `Request<Command, Reply>`: sends it through the outbox and sleeps until the reply, its output |
/// | `signal` | returns `Signal<T>`: sleeps until somebody sends a `T`, its output |
/// | `child` | returns `Child<Saga>`: starts it and sleeps until its end; its output is that saga's |
/// | `compensate = method` or `none` | what undoes it; needed for every `tx`, `call` and `request` before the pivot. A `child` without it is undone by undoing that saga |
/// | `pivot` | once it has succeeded there is no way back: what comes after it is retried until it succeeds |
/// | `after = step`, `after = [a, b]`, `after = start` | what it comes after; without it, the step before it in the source |
/// | `retry(attempts = 8, backoff = "200ms..1m", jitter = 50, budget = "1h")` | how often it is tried, the first and the longest pause, how many per cent of a pause are random, how long after the first failure it is still tried; `attempts = forever` never gives up |
/// | `timeout = "10s"` | how long one attempt may take, in `ms`, `s`, `m`, `h` or `d`, or how long the answer is waited for; without it 30 s, a day for a reply, for ever for a signal or a saga |
/// | `delay = "5m"` | how long it waits before its first attempt |
/// | `skippable` | it may return `Err(skip(…))`: there is nothing to do |
/// | `for_each = input.lines`, `for_each = step`, `for_each = step.field` | it runs once for every item of that list, and so does its compensation |
/// | `concurrency = 8` | how many items are under way at once |
/// | `savepoint`, `alternate = step` | see [alternates](macro@saga#alternates) |
/// | `probe = method` | what finds out whether a `call` or a `request` happened |
/// | `early = refuse` | a signal that comes before the step waits for it is refused instead of kept |
/// | `since = 2` | the version that brought it; an older saga that is past it goes on without, so it is received as `Option<&T>` |
/// | `upcast = method` | with `since`: what makes up its output for older sagas |
/// | `name = "…"` | the name under which it is recorded, if not the method's |
///
/// Without `retry`, a step after the pivot follows `RetryPolicy::FORWARD`, every other one `RetryPolicy::STEP`; a reply, a
/// signal or a saga is waited for once, `RetryPolicy::ONCE`, and after the pivot asked for again, but for a signal.
///
/// # Idempotency
///
/// The body of a `tx` step takes effect exactly once. The body of a `call` step may run again, on any worker, with the
/// same `call.idempotency_key()`.
#[proc_macro_attribute]
pub fn step(_args: TokenStream, item: TokenStream) -> TokenStream {
    item
}

/// Marks what undoes a step of a [`#[saga]`](macro@saga); the step names it: `compensate = refund`.
///
/// | key | meaning |
/// |---|---|
/// | `retry(attempts = 8, backoff = "200ms..1m", …)` | as for a step; without it, `RetryPolicy::COMPENSATION` |
/// | `timeout = "10s"` | as for a step |
///
/// Its form says how it undoes, whatever the kind of its step: an `async fn` with `&mut StepTx` in a transaction, with
/// `&Call` by a call; a plain `fn` that returns `Request<Command, Reply>` by a request.
/// It may read `input`, what surely ran before its step, and the output of its step:
///
/// - as `&T`: it cannot run without it, so a step that ended unknown is settled first;
/// - as `Option<&T>`: it runs without knowing, with `None`;
/// - or not at all: it runs without knowing.
///
/// What it returns is not recorded.
///
/// # Idempotency
///
/// As for a step: a compensation by a call may run again under the same key, and must bear that nothing was done.
#[proc_macro_attribute]
pub fn compensate(_args: TokenStream, item: TokenStream) -> TokenStream {
    item
}

/// Marks what finds out whether a step of a [`#[saga]`](macro@saga) happened; the step names it: `probe = find_charge`.
///
/// It is an `async fn(&self, call: &Call, …) -> StepResult<Option<T>>`, where `T` is what the step returns: `Some` if it
/// happened, `None` if it did not and will not. It may read `input`, `item` and what surely ran before the step.
///
/// | key | meaning |
/// |---|---|
/// | `retry(attempts = 8, backoff = "200ms..1m", …)` | as for a step; without it, `RetryPolicy::COMPENSATION` |
/// | `timeout = "10s"` | as for a step |
///
/// # Idempotency
///
/// It may run again, on any worker, and changes nothing.
#[proc_macro_attribute]
pub fn probe(_args: TokenStream, item: TokenStream) -> TokenStream {
    item
}

/// Marks what makes up the output of a step for sagas that are older than it; the step names it: `upcast = guess`.
///
/// It is a plain `fn(&self, …) -> StepResult<T>`, where `T` is what others receive of the step. It may read `input` and what
/// surely ran before the step. It has no keys. If it fails, the saga waits for an operator.
#[proc_macro_attribute]
pub fn upcast(_args: TokenStream, item: TokenStream) -> TokenStream {
    item
}

/// Implements `Message` for a struct: something that is published through the outbox.
///
/// ```text
/// #[derive(Serialize, Deserialize, Message)]
/// #[message(name = "stock.reserved", key = sku)]
/// struct StockReserved { sku: String, qty: u32 }
/// ```
///
/// | key | meaning |
/// |---|---|
/// | `name = "…"` | the type of the message on the wire and its routing key |
/// | `key = field` | the field whose text (`ToString`) is the ordering key; without it the message promises no order |
/// | `crate = "path"` | where `amends` is, if it was renamed |
#[proc_macro_derive(Message, attributes(message))]
pub fn message(item: TokenStream) -> TokenStream {
    message::derive(item.into()).into()
}
