//! A world of fakes: each takes effect once for a key, and a cancelled key stays cancelled.

use std::collections::{BTreeMap, BTreeSet};

use amends::Call;
use amends::testing::Handle;

/// What is booked under which key; cancelled keys stay, so that a late request does nothing.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Shop {
    pub(crate) booked: BTreeMap<String, i64>,
    pub(crate) cancelled: BTreeSet<String>,
}

pub(crate) trait Desk {
    fn book(&self, call: &Call, what: i64);
    fn cancel(&self, call: &Call);
}

impl Desk for Handle<Shop> {
    fn book(&self, call: &Call, what: i64) {
        self.with(|shop| {
            if !shop.cancelled.contains(call.step_key()) {
                shop.booked.insert(call.step_key().to_owned(), what);
            }
        });
    }

    fn cancel(&self, call: &Call) {
        self.with(|shop| {
            shop.booked.remove(call.step_key());
            shop.cancelled.insert(call.step_key().to_owned());
        });
    }
}
