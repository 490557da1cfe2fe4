//! From the type of a message to whoever handles that type.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use amends::Message;
use async_trait::async_trait;
use sqlx::PgConnection;

use super::handler::{Handle, Handler, HandlerError};
use crate::Incoming;

/// One handler for each type.
#[derive(Default)]
pub(super) struct Routes {
    routes: BTreeMap<&'static str, Box<dyn Handler>>,
    /// A message of another type is acknowledged.
    pub(super) ignore_unknown: bool,
}

impl Routes {
    /// `false` if the type has a handler already, which it keeps.
    pub(super) fn add<M: Message + 'static>(&mut self, handler: impl Handle<M>) -> bool {
        if self.routes.contains_key(M::NAME) {
            return false;
        }
        self.routes.insert(M::NAME, Box::new(Typed { handler, of: PhantomData }));
        true
    }

    pub(super) fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }
}

#[async_trait]
impl Handler for Routes {
    async fn handle(&self, tx: &mut PgConnection, message: &Incoming) -> Result<(), HandlerError> {
        if let Some(handler) = self.routes.get(message.name.as_str()) {
            return handler.handle(tx, message).await;
        }
        if self.ignore_unknown {
            return Ok(());
        }
        let known = self.routes.keys().copied().collect::<Vec<_>>().join("`, `");
        Err(HandlerError::Reject(format!(
            "this consumer knows no `{}`; it handles `{known}`; register a handler for it, bind the queue without it, or \
             call `ignore_unknown`",
            message.name
        )))
    }
}

struct Typed<M, H> {
    handler: H,
    of: PhantomData<fn(M)>,
}

#[async_trait]
impl<M: Message + 'static, H: Handle<M>> Handler for Typed<M, H> {
    async fn handle(&self, tx: &mut PgConnection, message: &Incoming) -> Result<(), HandlerError> {
        match message.read::<M>()? {
            Some(event) => self.handler.handle(tx, event, message).await,
            None => Err(HandlerError::Reject(format!("message {} is no `{}`", message.id, M::NAME))),
        }
    }
}
