//! Reads the arguments of `#[saga]`, `#[step]` and `#[compensate]`. Unknown keys name the known ones.

use proc_macro2::{Span, TokenStream};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream, Parser};
use syn::{Error, Ident, LitInt, LitStr, Path, Token, Type, bracketed, parenthesized, parse_quote};

use crate::duration;
use crate::model::{Attempts, Compensate, Kind, Retry, SagaArgs, StepArgs, UndoArgs};
use crate::sink::Sink;

const SAGA_KEYS: &str = "`name`, `version`, `input` and `crate`";
const STEP_KEYS: &str = "`tx`, `call`, `compensate`, `pivot`, `after`, `retry`, `timeout` and `name`";
const UNDO_KEYS: &str = "`retry` and `timeout`";
const RETRY_KEYS: &str = "`attempts` and `backoff`";

/// Reads `key`, `key = value` and `key(…)`, separated by commas. After a mistake it goes on behind the next comma.
pub(crate) fn each_key(
    tokens: TokenStream,
    sink: &mut Sink,
    mut read: impl FnMut(&Ident, ParseStream<'_>) -> syn::Result<()>,
) {
    let parser = |input: ParseStream<'_>| {
        let mut seen: Vec<Ident> = Vec::new();
        while !input.is_empty() {
            let result = Ident::parse_any(input).and_then(|key| {
                if seen.contains(&key) {
                    return Err(written_twice(&key));
                }
                read(&key, input)?;
                seen.push(key);
                if input.is_empty() { Ok(()) } else { input.parse::<Token![,]>().map(drop) }
            });
            if let Err(error) = result {
                sink.push(error);
                while !input.is_empty() && !input.peek(Token![,]) {
                    input.parse::<proc_macro2::TokenTree>()?;
                }
                input.parse::<Option<Token![,]>>()?;
            }
        }
        Ok(())
    };
    // The parser itself does not fail: it keeps what went wrong.
    let _ = parser.parse2(tokens);
}

fn written_twice(key: &Ident) -> Error {
    Error::new(key.span(), format!("`{key}` is written twice; keep one of them"))
}

pub(crate) fn unknown(key: &Ident, what: &str, known: &str) -> Error {
    Error::new(key.span(), format!("{what} has no key `{key}`; it has {known}"))
}

pub(crate) fn equals<T: Parse>(input: ParseStream<'_>) -> syn::Result<T> {
    input.parse::<Token![=]>()?;
    input.parse()
}

pub(crate) fn saga(tokens: TokenStream, sink: &mut Sink) -> Option<SagaArgs> {
    let (mut name, mut version, mut ty, mut krate) = (None::<LitStr>, None, None, None::<Path>);
    let known = sink.len();
    each_key(tokens, sink, |key, input| {
        match key.to_string().as_str() {
            "name" => name = Some(equals(input).and_then(non_empty)?),
            "version" => version = Some(equals(input).and_then(|version| positive(key, &version))?),
            "input" => ty = Some(equals::<Type>(input)?),
            "crate" => krate = Some(equals::<LitStr>(input)?.parse()?),
            _ => return Err(unknown(key, "#[saga]", SAGA_KEYS)),
        }
        Ok(())
    });
    let missing: Vec<_> =
        [("name = \"…\"", name.is_none()), ("version = 1", version.is_none()), ("input = Type", ty.is_none())]
            .into_iter()
            .filter_map(|(key, missing)| missing.then_some(key))
            .collect();
    if !missing.is_empty() && known == sink.len() {
        let missing = missing.join(", ");
        sink.at(
            Span::call_site(),
            format!("#[saga] needs `{missing}`: what is stored must not depend on what is called how in the code"),
        );
    }
    let krate = krate.unwrap_or_else(|| parse_quote!(::amends));
    Some(SagaArgs { name: name?, version: version?, input: ty?, krate })
}

fn non_empty(name: LitStr) -> syn::Result<LitStr> {
    let value = name.value();
    if value.is_empty() || value.len() > 200 || value.chars().any(char::is_control) {
        return Err(Error::new(name.span(), "a name has 1 to 200 visible characters"));
    }
    Ok(name)
}

fn positive(key: &Ident, number: &LitInt) -> syn::Result<u32> {
    match number.base10_parse()? {
        0 => Err(Error::new(number.span(), format!("`{key}` counts from 1"))),
        number => Ok(number),
    }
}

pub(crate) fn step(tokens: TokenStream, method: &Ident, sink: &mut Sink) -> StepArgs {
    let mut args = StepArgs::default();
    let known = sink.len();
    each_key(tokens, sink, |key, input| {
        match key.to_string().as_str() {
            word @ ("tx" | "call") => {
                if args.kind.is_some() {
                    return Err(Error::new(key.span(), "a step is of one kind: `tx` or `call`"));
                }
                args.kind = Some(if word == "tx" { Kind::Tx } else { Kind::Call });
            }
            "compensate" => {
                let by: Ident = equals(input)?;
                args.compensate = Some(if by == "none" { Compensate::None } else { Compensate::By(by) });
            }
            "pivot" => args.pivot = Some(key.span()),
            "after" => args.after = Some(after(input)?),
            "retry" => args.retry = Some(retry(input)?),
            "timeout" => args.timeout = Some(equals(input).and_then(|text: LitStr| duration::parse(&text))?),
            "name" => args.name = Some(equals(input).and_then(non_empty).and_then(without_slash)?),
            _ => return Err(unknown(key, "#[step]", STEP_KEYS)),
        }
        Ok(())
    });
    if args.kind.is_none() && known == sink.len() {
        sink.at(
            method.span(),
            format!(
                "step `{method}` needs a kind: `#[step(tx)]` for a transaction, `#[step(call)]` for a call to another service"
            ),
        );
    }
    args.sound = known == sink.len();
    args
}

/// A slash ends the step in an idempotency key.
fn without_slash(name: LitStr) -> syn::Result<LitStr> {
    if name.value().contains('/') {
        return Err(Error::new(name.span(), "a step's name has no slash, which ends it in an idempotency key"));
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

fn retry(input: ParseStream<'_>) -> syn::Result<Retry> {
    let content;
    let brackets = parenthesized!(content in input);
    let mut retry = Retry::default();
    if content.is_empty() {
        return Err(Error::new(brackets.span.join(), format!("retry needs {RETRY_KEYS}, or one of them")));
    }
    while !content.is_empty() {
        let key = content.call(Ident::parse_any)?;
        let twice = match key.to_string().as_str() {
            "attempts" => retry.attempts.replace(attempts(&key, &content)?).is_some(),
            "backoff" => {
                let text = equals(&content)?;
                retry.backoff.replace(duration::parse_range(&text)?).is_some()
            }
            _ => return Err(unknown(&key, "retry", RETRY_KEYS)),
        };
        if twice {
            return Err(written_twice(&key));
        }
        if !content.is_empty() {
            content.parse::<Token![,]>()?;
        }
    }
    Ok(retry)
}

fn attempts(key: &Ident, input: ParseStream<'_>) -> syn::Result<Attempts> {
    input.parse::<Token![=]>()?;
    if input.peek(syn::LitInt) {
        return positive(key, &input.parse()?).map(Attempts::Most);
    }
    let word: Ident = input.parse()?;
    if word == "forever" {
        return Ok(Attempts::Forever);
    }
    Err(Error::new(word.span(), "attempts are a number, or `forever`"))
}

pub(crate) fn compensate(tokens: TokenStream, sink: &mut Sink) -> UndoArgs {
    let mut args = UndoArgs::default();
    each_key(tokens, sink, |key, input| {
        match key.to_string().as_str() {
            "retry" => args.retry = Some(retry(input)?),
            "timeout" => args.timeout = Some(equals(input).and_then(|text: LitStr| duration::parse(&text))?),
            _ => return Err(unknown(key, "#[compensate]", UNDO_KEYS)),
        }
        Ok(())
    });
    args
}
