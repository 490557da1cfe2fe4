//! Messages that were packed, as handlers want them.

use amends::{CLAIM_CHECK_HEADER, CONTENT_ENCODING_HEADER, Payloads};
use async_trait::async_trait;
use sqlx::PgConnection;

use crate::{Handler, HandlerError, Incoming};

/// A handler that gets every message unpacked: fetched from where its payload is kept, decrypted, decompressed.
///
/// Messages that were never packed come through as they are. One whose payload cannot be had for good, such as of an encoding
/// that is not registered here, goes to the dead letters with the reason; a store that cannot be reached is tried again.
#[derive(Debug)]
pub struct Unpacking<H> {
    payloads: Payloads,
    handler: H,
}

impl<H> Unpacking<H> {
    /// Unpacks what comes to `handler`.
    pub fn new(payloads: Payloads, handler: H) -> Self {
        Self { payloads, handler }
    }
}

#[async_trait]
impl<H: Handler> Handler for Unpacking<H> {
    async fn handle(&self, tx: &mut PgConnection, message: &Incoming) -> Result<(), HandlerError> {
        if message.is_packed() {
            self.handler.handle(tx, &message.unpack(&self.payloads).await?).await
        } else {
            self.handler.handle(tx, message).await
        }
    }
}

impl Incoming {
    /// Its payload is encoded, or is kept elsewhere: [`read`](Self::read) takes it only unpacked.
    pub fn is_packed(&self) -> bool {
        self.headers.contains_key(CONTENT_ENCODING_HEADER) || self.headers.contains_key(CLAIM_CHECK_HEADER)
    }

    /// The message with its payload as it was before [`Payloads::pack`].
    ///
    /// # Errors
    /// [`HandlerError::Retry`] if the store of payloads cannot be reached; [`HandlerError::Reject`] with the reason if the
    /// payload can never be had here.
    pub async fn unpack(&self, payloads: &Payloads) -> Result<Self, HandlerError> {
        let unpacked = payloads.unpack(&self.headers, self.payload.clone()).await;
        let payload = unpacked.map_err(|error| {
            if error.is_passing() {
                HandlerError::Retry(Box::new(error))
            } else {
                HandlerError::Reject(format!("message {} `{}` cannot be unpacked: {error}", self.id, self.name))
            }
        })?;
        let mut message = Self { payload, ..self.clone() };
        message.headers.remove(CONTENT_ENCODING_HEADER);
        message.headers.remove(CLAIM_CHECK_HEADER);
        Ok(message)
    }
}
