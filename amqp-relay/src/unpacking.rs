//! Messages that were packed, as handlers want them.

use amends::{CLAIM_CHECK_HEADER, CONTENT_ENCODING_HEADER, Payloads};

use crate::{HandlerError, Incoming};

impl Incoming {
    /// Its payload is encoded, or is kept elsewhere.
    pub(crate) fn is_packed(&self) -> bool {
        Payloads::is_packed(&self.headers)
    }

    /// The message with its payload as it was before [`Payloads::pack`].
    pub(crate) async fn unpack(&self, payloads: &Payloads) -> Result<Self, HandlerError> {
        let unpacked = payloads.unpack(&self.headers, self.payload.clone()).await;
        let payload = unpacked.map_err(|error| {
            if error.is_passing() {
                HandlerError::Unavailable(Box::new(error))
            } else {
                HandlerError::Reject(format!("message {} `{}` cannot be unpacked: {error}", self.id, self.name))
            }
        })?;
        let mut message = Self { payload, was_packed: true, ..self.clone() };
        message.headers.remove(CONTENT_ENCODING_HEADER);
        message.headers.remove(CLAIM_CHECK_HEADER);
        Ok(message)
    }
}
