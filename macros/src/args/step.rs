//! Reads the arguments of `#[step]`.

use proc_macro2::TokenStream;
use syn::parse::{Parse, ParseStream};
use syn::{Error, Ident, LitInt, LitStr, Token, bracketed};

use super::retry::retry;
use super::{each_key, equals, non_empty, positive, time, unknown};
use crate::model::{Compensate, Kind, Over, StepArgs};
use crate::sink::Sink;

const KINDS: &str = "`tx`, `call`, `request`, `signal` or `child`";
const STEP_KEYS: &str = "`tx`, `call`, `request`, `signal`, `child`, `compensate`, `pivot`, `after`, `retry`, `timeout`, \
                         `name`, `delay`, `skippable`, `savepoint`, `alternate`, `probe`, `upcast`, `since`, `early`, \
                         `for_each` and `concurrency`";

pub(crate) fn step(tokens: TokenStream, method: &Ident, sink: &mut Sink) -> StepArgs {
    let mut args = StepArgs::default();
    let known = sink.len();
    each_key(tokens, sink, |key, input| {
        let word = key.to_string();
        if let Some(kind) = Kind::of(&word) {
            if args.kind.is_some() {
                return Err(Error::new(key.span(), format!("a step is of one kind: {KINDS}")));
            }
            args.kind = Some(kind);
            return Ok(());
        }
        match word.as_str() {
            "compensate" => {
                let by: Ident = equals(input)?;
                args.compensate = Some(if by == "none" { Compensate::None } else { Compensate::By(by) });
            }
            "pivot" => args.pivot = Some(key.span()),
            "after" => args.after = Some(after(input)?),
            "retry" => args.retry = Some(retry(input)?),
            "timeout" => args.timeout = Some(time(input)?),
            "name" => args.name = Some(equals(input).and_then(non_empty).and_then(without_brackets)?),
            "delay" => args.delay = Some(time(input)?),
            "skippable" => args.skippable = Some(key.span()),
            "savepoint" => args.savepoint = Some(key.span()),
            "alternate" => args.alternate = Some(equals(input)?),
            "probe" => args.probe = Some(equals(input)?),
            "upcast" => args.upcast = Some(equals(input)?),
            "since" => args.since = Some((number(key, input)?, key.span())),
            "early" => {
                refuse(input)?;
                args.early = Some(key.span());
            }
            "for_each" => args.for_each = Some(over(input)?),
            "concurrency" => args.concurrency = Some((number(key, input)?, key.span())),
            _ => return Err(unknown(key, "#[step]", STEP_KEYS)),
        }
        Ok(())
    });
    if args.kind.is_none() && known == sink.len() {
        sink.at(
            method.span(),
            format!(
                "step `{method}` needs a kind: `#[step(tx)]` for a transaction, `#[step(call)]` for a call to another \
                 service, `#[step(request)]`, `#[step(signal)]` or `#[step(child)]` to wait for a reply, for a signal \
                 or for another saga"
            ),
        );
    }
    args.sound = known == sink.len();
    args
}

fn number(key: &Ident, input: ParseStream<'_>) -> syn::Result<u32> {
    equals(input).and_then(|number: LitInt| positive(key, &number))
}

/// A slash ends the step in an idempotency key, a bracket begins the number of an item.
fn without_brackets(name: LitStr) -> syn::Result<LitStr> {
    let value = name.value();
    if value.contains(['/', '[']) {
        return Err(Error::new(
            name.span(),
            "a step's name has no slash, which ends it in an idempotency key, and no bracket, which begins an item's number",
        ));
    }
    if ["input", "item", "start"].contains(&value.as_str()) {
        return Err(Error::new(
            name.span(),
            format!("a step cannot be recorded as `{value}`, which means something else in a saga; write another name"),
        ));
    }
    Ok(name)
}

/// `after = start`, `after = a` or `after = [a, b]`; empty for `start`.
fn after(input: ParseStream<'_>) -> syn::Result<Vec<Ident>> {
    input.parse::<Token![=]>()?;
    if input.peek(syn::token::Bracket) {
        let list;
        let brackets = bracketed!(list in input);
        let names = list.parse_terminated(Ident::parse, Token![,])?;
        if let Some(start) = names.iter().find(|name| *name == "start") {
            return Err(Error::new(start.span(), "`start` stands alone: `after = start`"));
        }
        if names.is_empty() {
            return Err(Error::new(
                brackets.span.join(),
                "`after` names a step; a step that comes after none says `after = start`",
            ));
        }
        return Ok(names.into_iter().collect());
    }
    let name: Ident = input.parse()?;
    Ok(if name == "start" { Vec::new() } else { vec![name] })
}

fn refuse(input: ParseStream<'_>) -> syn::Result<()> {
    let word: Ident = equals(input)?;
    if word == "refuse" {
        return Ok(());
    }
    Err(Error::new(word.span(), "`early` is `refuse`; without it, a signal that comes too early is kept"))
}

fn over(input: ParseStream<'_>) -> syn::Result<Over> {
    let root = equals(input)?;
    let mut fields = Vec::new();
    while input.parse::<Option<Token![.]>>()?.is_some() {
        fields.push(input.parse()?);
    }
    Ok(Over { root, fields })
}
