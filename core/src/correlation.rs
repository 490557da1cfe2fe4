//! What a reply belongs to.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::SagaId;

/// The header of a request by which its reply finds home; a participant sends it back unchanged.
pub const CORRELATION_HEADER: &str = "amends-correlation";

/// The header of a request with the key under which it takes effect once, the same in every attempt.
pub const IDEMPOTENCY_HEADER: &str = "amends-idempotency-key";

/// Which attempt, at which step of which saga, a request belongs to.
///
/// ```
/// use amends::Correlation;
/// let correlation: Correlation = "0192d4e0-0000-7000-8000-000000000001/ship#1".parse()?;
/// assert_eq!((correlation.step.as_str(), correlation.undo, correlation.attempt), ("ship", false, 1));
/// assert_eq!(correlation.to_string(), "0192d4e0-0000-7000-8000-000000000001/ship#1");
/// # Ok::<(), amends::CorrelationError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Correlation {
    /// The saga that asks.
    pub saga: SagaId,
    /// The recorded name of the step.
    pub step: String,
    /// It is the compensation of the step that asks.
    pub undo: bool,
    /// Which attempt, counted from 1.
    pub attempt: u32,
}

/// A text is no [`Correlation`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "`{0}` is not the correlation of a request; a participant sends back the header `{CORRELATION_HEADER}` as it came"
)]
pub struct CorrelationError(String);

impl fmt::Display for Correlation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let undo = if self.undo { "/undo" } else { "" };
        write!(f, "{}/{}{undo}#{}", self.saga, self.step, self.attempt)
    }
}

impl FromStr for Correlation {
    type Err = CorrelationError;

    fn from_str(text: &str) -> Result<Self, CorrelationError> {
        let parse = || {
            let (saga, rest) = text.split_once('/')?;
            let (step, attempt) = rest.rsplit_once('#')?;
            // A step's name has no slash.
            let (step, undo) = step.strip_suffix("/undo").map_or((step, false), |step| (step, true));
            let named = !step.is_empty() && !step.contains('/');
            named.then_some(Self {
                saga: saga.parse().ok()?,
                step: step.to_owned(),
                undo,
                attempt: attempt.parse().ok()?,
            })
        };
        parse().ok_or_else(|| CorrelationError(crate::sanitize(text)))
    }
}
