//! A message may be generic, and may have fields without names or none.

use amends::Message;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Message)]
#[message(name = "changed", key = id)]
struct Changed<T> {
    id: u64,
    to: T,
}

#[derive(Serialize, Deserialize, Message)]
#[message(name = "moved")]
struct Moved<T: Clone, U>(T, U)
where
    U: Default;

#[derive(Serialize, Deserialize, Message)]
#[message(name = "stopped")]
struct Stopped;

fn is_message<M: Message>(message: &M) -> (&'static str, Option<String>) {
    (M::NAME, message.key().map(Into::into))
}

#[test]
fn a_message_may_be_generic_or_have_no_fields() {
    let changed = Changed { id: 7, to: "blue".to_owned() };
    assert_eq!(is_message(&changed), ("changed", Some("7".to_owned())));
    assert_eq!(changed.to, "blue");
    assert_eq!(is_message(&Moved(1_u8, 2_u8)), ("moved", None));
    assert_eq!(is_message(&Stopped), ("stopped", None));
}
