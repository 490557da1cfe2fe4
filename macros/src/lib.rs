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
/// #[saga(name = "place-order", version = 1, input = Order)]
/// impl PlaceOrder { … }
/// ```
///
/// | key | meaning |
/// |---|---|
/// | `name = "…"` | the name under which it is stored; unique in the database |
/// | `version = 1` | counts up when the graph changes; old versions keep running beside the new one |
/// | `input = T` | what it is started with |
/// | `crate = "path"` | where `amends` is, if it was renamed |
///
/// Methods with `#[step]` are the steps, in source order; methods with `#[compensate]` undo them. The block is emitted
/// again as it is, so every method stays an ordinary method. The type gets `DEFINITION`, `key(…)` and `unkeyed()`.
///
/// # `#[step(…)]`
///
/// | key | meaning |
/// |---|---|
/// | `tx` | the body gets `&mut StepTx`: its writes, its messages and its record commit at once |
/// | `call` | the body gets `&Call`: it runs at least once, under one idempotency key |
/// | `compensate = method` or `none` | what undoes it; needed for every step before the pivot |
/// | `pivot` | once it has succeeded there is no way back |
/// | `after = step`, `after = [a, b]`, `after = start` | what it comes after; without it, the step before it in the source |
/// | `retry(attempts = 8, backoff = "200ms..1m")` | when a failed attempt is repeated; `attempts = forever` never gives up |
/// | `timeout = "10s"` | how long one attempt may take |
/// | `name = "…"` | the name under which it is recorded, if not the method's |
///
/// After the capability, a parameter is `input` or the name of an earlier step, by reference: the graph is in the
/// signatures. `#[compensate(retry(…), timeout = "…")]` marks a compensation; it may read what its step may read, and
/// the output of its own step, as `&T` (which must then be known) or as `Option<&T>` (which need not be).
#[proc_macro_attribute]
pub fn saga(args: TokenStream, item: TokenStream) -> TokenStream {
    expand::saga(args.into(), item.into()).into()
}

/// Marks a step inside of [`macro@saga`]; see there.
#[proc_macro_attribute]
pub fn step(_args: TokenStream, item: TokenStream) -> TokenStream {
    item
}

/// Marks a compensation inside of [`macro@saga`]; see there.
#[proc_macro_attribute]
pub fn compensate(_args: TokenStream, item: TokenStream) -> TokenStream {
    item
}

/// Implements `Message`: `#[message(name = "stock.reserved", key = sku)]`.
///
/// `name` is the type of the message on the wire and its routing key. `key` names the field whose text is the ordering
/// key; without it the message promises no order.
#[proc_macro_derive(Message, attributes(message))]
pub fn message(item: TokenStream) -> TokenStream {
    message::derive(item.into()).into()
}
