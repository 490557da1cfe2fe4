//! Reads the arguments of our attributes. Unknown keys name the known ones.

use std::time::Duration;

use proc_macro2::{Span, TokenStream};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream, Parser};
use syn::{Error, Ident, LitInt, LitStr, Path, Token, Type, parse_quote};

use crate::duration;
use crate::model::{SagaArgs, Schedule};
use crate::sink::Sink;

mod retry;
mod step;

pub(crate) use retry::{helper, upcast};
pub(crate) use step::step;

const SAGA_KEYS: &str = "`name`, `version`, `since`, `input`, `deadline`, `concurrency`, `every`, `cron` and `crate`";

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

fn time(input: ParseStream<'_>) -> syn::Result<Duration> {
    equals(input).and_then(|text: LitStr| duration::parse(&text))
}

pub(crate) fn saga(tokens: TokenStream, sink: &mut Sink) -> Option<SagaArgs> {
    let (mut name, mut version, mut ty, mut krate) = (None::<LitStr>, None, None, None::<Path>);
    let (mut since, mut deadline, mut concurrency, mut schedule) = (None::<LitInt>, None, None, None);
    let known = sink.len();
    each_key(tokens, sink, |key, input| {
        match key.to_string().as_str() {
            "name" => name = Some(equals(input).and_then(non_empty)?),
            "version" => version = Some(equals(input).and_then(|version| positive(key, &version))?),
            "since" => {
                let number = equals(input)?;
                positive(key, &number)?;
                since = Some(number);
            }
            "deadline" => deadline = Some(time(input)?),
            "concurrency" => concurrency = Some(equals(input).and_then(|number| positive(key, &number))?),
            "every" | "cron" if schedule.is_some() => {
                return Err(Error::new(key.span(), "a saga has one schedule: `every` or `cron`"));
            }
            "every" => schedule = Some(Schedule::Every(time(input)?)),
            "cron" => schedule = Some(Schedule::Cron(equals(input).and_then(five_fields)?)),
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
    let (name, version, input) = (name?, version?, ty?);
    let oldest = since.as_ref().and_then(|number| number.base10_parse().ok()).unwrap_or(version);
    if let Some(since) = since.filter(|_| oldest > version) {
        sink.at(
            since.span(),
            format!(
                "version {version} cannot carry on the later version {oldest}; `since` is the oldest that it carries on"
            ),
        );
    }
    Some(SagaArgs { name, version, since: oldest, input, deadline, concurrency, schedule, krate })
}

/// What else is wrong with it is found out when the saga is registered.
fn five_fields(line: LitStr) -> syn::Result<LitStr> {
    if line.value().split_whitespace().count() == 5 {
        return Ok(line);
    }
    Err(Error::new(line.span(), "a cron line has five fields, such as \"0 3 * * *\" for every night at three, in UTC"))
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
