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
/// | `input = T` | what it is started with |
/// | `crate = "path"` | where `amends` is, if it was renamed |
///
/// Methods with [`#[step]`](macro@step) are the steps; methods with [`#[compensate]`](macro@compensate) undo them; all
/// others are left alone. The block is emitted again as it is, so every method stays an ordinary method that a test
/// can call. The type implements `Saga` and `Steps` and gets
///
/// - `DEFINITION`, the graph, whose text has a line a step and is meant for a golden test;
/// - `key(…)` and `unkeyed()`, to start it with a business key or without one;
/// - a constant for each step, such as `CHARGE`, with the name under which it is recorded, unless the block has a
///   constant of that name.
///
/// # The graph is in the signatures
///
/// Steps run in source order. `after = [a, b]` names other predecessors and `after = start` says that there are none;
/// what does not come after one another runs in parallel. After the capability, a parameter is `input` or the name of
/// an earlier step, by reference, and its type is what that step returns; a `String` may be received as `&str` and a
/// `Vec<T>` as `&[T]`. A step may read only what surely ran before it.
///
/// # What it rejects
///
/// A parameter that names no earlier step, or one that may not have run; a step before the pivot without
/// `compensate = …`; a compensation at or after the pivot; two pivots on a path; a `#[compensate]` that nobody names, or
/// two steps name; a capability of the wrong kind; two steps of one name; keys that it does not know. Each mistake
/// gives one message, which names the valid choices.
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

/// Marks a step of a [`#[saga]`](macro@saga): an `async fn(&self, capability, …) -> StepResult<T>`.
///
/// | key | meaning |
/// |---|---|
/// | `tx` | the body gets `&mut StepTx`: its writes, its messages and its record commit at once |
/// | `call` | the body gets `&Call`: it runs at least once, under one idempotency key |
/// | `compensate = method` or `none` | what undoes it; needed for every step before the pivot |
/// | `pivot` | once it has succeeded there is no way back: what comes after it is retried until it succeeds |
/// | `after = step`, `after = [a, b]`, `after = start` | what it comes after; without it, the step before it in the source |
/// | `retry(attempts = 8, backoff = "200ms..1m")` | how often it is tried, and the first and the longest pause; `attempts = forever` never gives up |
/// | `timeout = "10s"` | how long one attempt may take, in `ms`, `s`, `m`, `h` or `d`; 30 s without it |
/// | `name = "…"` | the name under which it is recorded, if not the method's |
///
/// Without `retry`, a step after the pivot follows `RetryPolicy::FORWARD`, every other one `RetryPolicy::STEP`.
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
/// | `retry(attempts = 8, backoff = "200ms..1m")` | as for a step; without it, `RetryPolicy::COMPENSATION` |
/// | `timeout = "10s"` | as for a step |
///
/// Its capability says how it undoes, whatever the kind of its step: `&mut StepTx` in a transaction, `&Call` by a call.
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
