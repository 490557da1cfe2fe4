//! The names of the standard library mean something else where the macros are used.

mod shadows {
    #![allow(dead_code, non_camel_case_types)]
    pub struct Result;
    pub struct Option;
    pub struct Box;
    pub struct String;
    pub struct ToString;
    pub struct Some;
    pub struct None;
    pub struct Ok;
    pub struct Err;
    pub struct Send;
    pub struct Sync;
    pub struct Cow;
    pub struct Duration;
    pub struct Display;
    pub struct Saga;
    pub struct Steps;
    pub struct Data;
    pub struct Json;
    pub mod core {}
    pub mod std {}
    pub mod amends {}
}

/// Only where nothing is derived: serde does not bear it.
mod primitives {
    #![allow(dead_code, non_camel_case_types)]
    pub struct str;
}

mod heard {
    #[allow(unused_imports)]
    use super::shadows::*;

    #[derive(::serde::Serialize, ::serde::Deserialize, ::amends::Message)]
    #[message(name = "heard", key = volume)]
    pub struct Heard {
        pub volume: u8,
    }
}

mod quiet {
    #[allow(unused_imports)]
    use super::primitives::*;
    use super::shadows::*;

    pub struct Quiet;

    #[::amends::saga(name = "quiet", version = 2, input = u8)]
    impl Quiet {
        #[step(call, compensate = hush, retry(attempts = forever, backoff = "1s..2s"))]
        async fn whisper(&self, call: &::amends::Call, input: &u8) -> ::amends::StepResult<u8> {
            let _ = (Result, Option, Box, String, Some, None, Ok, Err, Send, Sync, Cow, Duration);
            call.publish(&super::heard::Heard { volume: *input })?;
            ::core::result::Result::Ok(*input)
        }

        #[step(tx, pivot)]
        async fn sign(&self, _tx: &mut ::amends::memory::MemoryTx, whisper: &u8) -> ::amends::StepResult<()> {
            let _ = whisper;
            ::core::result::Result::Ok(())
        }

        #[compensate]
        async fn hush(&self, _call: &::amends::Call, whisper: ::core::option::Option<&u8>) -> ::amends::StepResult<()> {
            let _ = whisper;
            ::core::result::Result::Ok(())
        }
    }
}

#[test]
fn shadowed_names_do_no_harm() {
    let _ = quiet::Quiet::key(1);
    let store = amends::MemoryStore::new();
    let _ = amends::Sagas::builder(store).register(quiet::Quiet).build().unwrap();
    assert_eq!(amends::Message::key(&heard::Heard { volume: 3 }).as_deref(), Some("3"));
}
