//! Reads `retry(…)`, and the arguments of what a step names.

use proc_macro2::TokenStream;
use syn::ext::IdentExt;
use syn::parse::ParseStream;
use syn::{Error, Ident, LitInt, Token, parenthesized};

use super::{each_key, equals, positive, time, unknown, written_twice};
use crate::duration;
use crate::model::{Attempts, HelperArgs, Retry};
use crate::sink::Sink;

const HELPER_KEYS: &str = "`retry` and `timeout`";
const RETRY_KEYS: &str = "`attempts`, `backoff`, `jitter` and `budget`";

/// `#[compensate(…)]` or `#[probe(…)]`, as `what` says.
pub(crate) fn helper(tokens: TokenStream, what: &str, sink: &mut Sink) -> HelperArgs {
    let mut args = HelperArgs::default();
    each_key(tokens, sink, |key, input| {
        match key.to_string().as_str() {
            "retry" => args.retry = Some(retry(input)?),
            "timeout" => args.timeout = Some(time(input)?),
            _ => return Err(unknown(key, what, HELPER_KEYS)),
        }
        Ok(())
    });
    args
}

/// `#[upcast]`.
pub(crate) fn upcast(tokens: TokenStream, sink: &mut Sink) -> HelperArgs {
    each_key(tokens, sink, |key, _| Err(Error::new(key.span(), "#[upcast] has no keys; drop this one")));
    HelperArgs::default()
}

pub(super) fn retry(input: ParseStream<'_>) -> syn::Result<Retry> {
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
            "jitter" => {
                let number = equals(&content)?;
                retry.jitter.replace(per_cent(&number)?).is_some()
            }
            "budget" => retry.budget.replace(time(&content)?).is_some(),
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
    if input.peek(LitInt) {
        return positive(key, &input.parse()?).map(Attempts::Most);
    }
    let word: Ident = input.parse()?;
    if word == "forever" {
        return Ok(Attempts::Forever);
    }
    Err(Error::new(word.span(), "attempts are a number, or `forever`"))
}

fn per_cent(number: &LitInt) -> syn::Result<u8> {
    number
        .base10_parse()
        .ok()
        .filter(|per_cent| *per_cent <= 100)
        .ok_or_else(|| Error::new(number.span(), "`jitter` is how many per cent of a pause are random: 0 to 100"))
}
