//! The payment service, as the saga sees it, and its client.

use std::future::Future;

use amends::{Call, StepResult};
use reqwest::StatusCode;
use shop::api::{Charge, Charged, IDEMPOTENCY_KEY, Order, Refund, Refused};

/// What the saga needs of a payment service; a test has one of its own.
pub(crate) trait Pay: Send + Sync + 'static {
    /// Asks for the money, under the key of the step.
    fn charge(&self, call: &Call, order: &Order) -> impl Future<Output = StepResult<Answer>> + Send;

    /// Undoes the charge that the compensated step made or may have made.
    fn refund(&self, call: &Call) -> impl Future<Output = StepResult<()>> + Send;
}

/// Talks to the payment service.
#[derive(Debug, Clone)]
pub(crate) struct Payments {
    http: reqwest::Client,
    url: String,
}

/// A definite answer. Everything else is an error, after which nobody knows whether the money was taken.
#[derive(Debug)]
pub(crate) enum Answer {
    Charged { cents: i64 },
    Refused { code: String },
}

impl Payments {
    pub(crate) fn new(url: &str) -> Self {
        Self { http: reqwest::Client::new(), url: url.trim_end_matches('/').to_owned() }
    }
}

impl Pay for Payments {
    async fn charge(&self, call: &Call, order: &Order) -> StepResult<Answer> {
        let charge = Charge {
            reference: order.id,
            account: order.account.clone(),
            cents: order.cents,
            card: order.card.clone(),
        };
        let reply = self
            .http
            .post(format!("{}/charges", self.url))
            .header(IDEMPOTENCY_KEY, call.idempotency_key())
            .timeout(call.time_left())
            .json(&charge)
            .send()
            .await?;
        match reply.status() {
            StatusCode::PAYMENT_REQUIRED => Ok(Answer::Refused { code: reply.json::<Refused>().await?.code }),
            StatusCode::GONE => Ok(Answer::Refused { code: "already_undone".into() }),
            _ => {
                let charged: Charged = reply.error_for_status()?.json().await?;
                Ok(Answer::Charged { cents: charged.cents })
            }
        }
    }

    async fn refund(&self, call: &Call) -> StepResult<()> {
        let refund = Refund { charge: call.step_key().to_owned() };
        let request = self.http.post(format!("{}/refunds", self.url)).timeout(call.time_left()).json(&refund);
        request.send().await?.error_for_status()?;
        Ok(())
    }
}
