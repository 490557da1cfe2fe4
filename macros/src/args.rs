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
fn each_key(tokens: TokenStream, sink: &mut Sink, mut read: impl FnMut(&Ident, ParseStream<'_>) -> syn::Result<()>) {
    let parser = |input: ParseStream<'_>| {
        let mut seen: Vec<Ident> = Vec::new();
        while !input.is_empty() {
            let result = Ident::parse_any(input).and_then(|key| {
                if seen.contains(&key) {
                    return Err(Error::new(key.span(), format!("`{key}` is written twice; keep one of them")));
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

fn unknown(key: &Ident, what: &str, known: &str) -> Error {
    Error::new(key.span(), format!("{what} has no key `{key}`; it has {known}"))
}

fn equals<T: Parse>(input: ParseStream<'_>) -> syn::Result<T> {
    input.parse::<Token![=]>()?;
    input.parse()
}

pub(crate) fn saga(tokens: TokenStream, sink: &mut Sink) -> Option<SagaArgs> {
    let (mut name, mut version, mut ty, mut krate) = (None::<LitStr>, None, None, None::<Path>);
    let empty = tokens.is_empty();
    let before = sink.is_empty();
    each_key(tokens, sink, |key, input| {
        match key.to_string().as_str() {
            "name" => name = Some(equals(input).and_then(non_empty)?),
            "version" => version = Some(equals(input).and_then(|version| positive(&version))?),
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
    if !missing.is_empty() && (empty || before == sink.is_empty()) {
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

fn positive(number: &LitInt) -> syn::Result<u32> {
    match number.base10_parse()? {
        0 => Err(Error::new(number.span(), "this counts from 1")),
        number => Ok(number),
    }
}

pub(crate) fn step(tokens: TokenStream, method: &Ident, sink: &mut Sink) -> Option<StepArgs> {
    let mut kind = None;
    let mut args =
        StepArgs { kind: Kind::Tx, compensate: None, pivot: None, after: None, retry: None, timeout: None, name: None };
    let clean = sink.is_empty();
    each_key(tokens, sink, |key, input| {
        match key.to_string().as_str() {
            word @ ("tx" | "call") => {
                if kind.is_some() {
                    return Err(Error::new(key.span(), "a step is of one kind: `tx` or `call`"));
                }
                kind = Some(if word == "tx" { Kind::Tx } else { Kind::Call });
            }
            "compensate" => {
                let by: Ident = equals(input)?;
                args.compensate = Some(if by == "none" { Compensate::None } else { Compensate::By(by) });
            }
            "pivot" => args.pivot = Some(key.span()),
            "after" => args.after = Some(after(input)?),
            "retry" => args.retry = Some(retry(input)?),
            "timeout" => args.timeout = Some(equals(input).and_then(|text: LitStr| duration::parse(&text))?),
            "name" => args.name = Some(equals(input).and_then(non_empty)?),
            _ => return Err(unknown(key, "#[step]", STEP_KEYS)),
        }
        Ok(())
    });
    match kind {
        Some(kind) => args.kind = kind,
        None if clean == sink.is_empty() => {
            sink.at(method.span(), format!("step `{method}` needs a kind: `#[step(tx)]` for a transaction, `#[step(call)]` for a call to another service"));
        }
        None => return None,
    }
    kind.map(|_| args)
}

/// `after = start`, `after = a` or `after = [a, b]`; empty for `start`.
fn after(input: ParseStream<'_>) -> syn::Result<Vec<Ident>> {
    input.parse::<Token![=]>()?;
    if input.peek(syn::token::Bracket) {
        let list;
        bracketed!(list in input);
        let names = list.parse_terminated(Ident::parse, Token![,])?;
        return Ok(names.into_iter().collect());
    }
    let name: Ident = input.parse()?;
    Ok(if name == "start" { Vec::new() } else { vec![name] })
}

fn retry(input: ParseStream<'_>) -> syn::Result<Retry> {
    let content;
    parenthesized!(content in input);
    let mut retry = Retry::default();
    while !content.is_empty() {
        let key = content.call(Ident::parse_any)?;
        match key.to_string().as_str() {
            "attempts" => retry.attempts = Some(attempts(&content)?),
            "backoff" => retry.backoff = Some(equals(&content).and_then(|text: LitStr| duration::parse_range(&text))?),
            _ => return Err(unknown(&key, "retry", RETRY_KEYS)),
        }
        content.parse::<Option<Token![,]>>()?;
    }
    Ok(retry)
}

fn attempts(input: ParseStream<'_>) -> syn::Result<Attempts> {
    input.parse::<Token![=]>()?;
    if input.peek(syn::LitInt) {
        return positive(&input.parse()?).map(Attempts::Most);
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
