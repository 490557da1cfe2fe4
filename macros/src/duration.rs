//! Durations as people write them: `200ms`, `10s`, `5m`, `2h`, `7d`.

use std::time::Duration;

use syn::{Error, LitStr};

pub(crate) fn parse(text: &LitStr) -> syn::Result<Duration> {
    of(&text.value()).ok_or_else(|| {
        Error::new(text.span(), format!("`{}` is not a duration; write a number and a unit, such as \"200ms\", \"10s\", \"5m\", \"2h\" or \"7d\"", text.value()))
    })
}

/// `"200ms..1m"`: the first pause and the longest.
pub(crate) fn parse_range(text: &LitStr) -> syn::Result<(Duration, Duration)> {
    let value = text.value();
    let range = value.split_once("..").and_then(|(first, longest)| Some((of(first)?, of(longest)?)));
    match range {
        Some((first, longest)) if first <= longest => Ok((first, longest)),
        Some(_) => {
            Err(Error::new(text.span(), "the first pause is longer than the longest one; write the shorter one first"))
        }
        None => Err(Error::new(
            text.span(),
            format!("`{value}` is not a backoff; write the first pause and the longest, such as \"200ms..1m\""),
        )),
    }
}

fn of(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text[..digits].parse().ok()?;
    let millis = match &text[digits..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    let duration = Duration::from_millis(number.checked_mul(millis)?);
    (!duration.is_zero()).then_some(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_told_apart() {
        assert_eq!(of("200ms"), Some(Duration::from_millis(200)));
        assert_eq!(of(" 2h "), Some(Duration::from_hours(2)));
        assert_eq!([of("5"), of("s"), of("0s"), of("1.5s"), of("-1s")], [None; 5]);
    }
}
