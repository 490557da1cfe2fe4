//! Every kind of step and every key at once, where the names of the standard library mean something else and `amends` is
//! somewhere else.

mod sagas {
    pub mod engine {
        pub use ::amends::*;
    }
}

mod shadows {
    #![allow(dead_code)]
    pub struct Result;
    pub struct Option;
    pub struct Box;
    pub struct Vec;
    pub struct String;
    pub struct Some;
    pub struct None;
    pub struct Ok;
    pub struct Err;
    pub struct Send;
    pub struct Cow;
    pub struct ToOwned;
    pub struct Duration;
    pub struct Begin;
    pub struct Begins;
    pub struct Saga;
    pub struct Steps;
    pub struct Data;
    pub struct Json;
    pub struct StepRef;
    pub mod core {}
    pub mod std {}
    pub mod amends {}
}

mod messages {
    #[derive(::serde::Serialize, ::serde::Deserialize, ::amends::Message)]
    #[message(name = "line.ask")]
    pub struct Ask(pub u32);

    #[derive(Clone, ::serde::Serialize, ::serde::Deserialize, ::amends::Message)]
    #[message(name = "line.told")]
    pub struct Told(pub u32);

    #[derive(::serde::Serialize, ::serde::Deserialize)]
    pub struct Order {
        pub lines: ::std::vec::Vec<u32>,
        pub names: ::std::vec::Vec<::std::string::String>,
    }
}

mod shop {
    #[allow(unused_imports)]
    use super::messages::{Ask, Order, Told};
    use super::sagas::engine::{Call, Child, Request, Signal, StepResult, memory::MemoryTx, saga, skip};
    #[allow(unused_imports)]
    use super::shadows::*;

    pub struct Pack;

    #[saga(name = "pack", version = 1, input = u32, crate = "crate::all_kinds::sagas::engine")]
    impl Pack {
        #[step(tx, compensate = none)]
        async fn fold(&self, _tx: &mut MemoryTx, input: &u32) -> StepResult<u32> {
            ::core::result::Result::Ok(*input)
        }
    }

    pub struct Shop;

    #[saga(name = "shop", version = 3, since = 2, input = Order, deadline = "1h", concurrency = 64, crate = "crate::all_kinds::sagas::engine")]
    impl Shop {
        #[step(tx, compensate = none, savepoint, name = "start_up", delay = "5m")]
        async fn open(&self, _tx: &mut MemoryTx, input: &Order) -> StepResult<u32> {
            let _ = (Result, Option, Box, Vec, String, Some, None, Ok, Err, Send, Cow, ToOwned, Duration);
            ::core::result::Result::Ok(input.lines.len() as u32)
        }

        #[step(tx, compensate = unwrap, skippable)]
        async fn wrap(&self, _tx: &mut MemoryTx) -> StepResult<u32> {
            ::core::result::Result::Err(skip("no gift"))
        }

        #[step(request, compensate = unask, for_each = input.lines, concurrency = 2, probe = find, timeout = "1h")]
        fn ask(&self, item: &u32, open: &u32, wrap: ::core::option::Option<&u32>) -> Request<Ask, Told> {
            Request::new(Ask(item + open + wrap.unwrap_or(&0)))
        }

        #[step(call, compensate = none, for_each = input.names, skippable)]
        async fn greet(&self, _call: &Call, item: &str) -> StepResult<u8> {
            let _ = item;
            ::core::result::Result::Err(skip("nobody"))
        }

        #[step(child, alternate = own, after = [ask, greet])]
        fn pack(&self, ask: &[Told], greet: &[::core::option::Option<u8>]) -> StepResult<Child<Pack>> {
            let _ = greet;
            ::core::result::Result::Ok(Child::new(&(ask.len() as u32)))
        }

        #[step(call, compensate = none, after = open, retry(attempts = 2, jitter = 20, budget = "1m"))]
        async fn own(&self, _call: &Call, open: &u32) -> StepResult<u32> {
            ::core::result::Result::Ok(*open)
        }

        #[step(signal, early = refuse, after = pack, timeout = "7d")]
        fn approve(&self, pack: &u32, open: &u32) -> Signal<bool> {
            let _ = (pack, open);
            Signal::wait()
        }

        #[step(call, compensate = none, since = 3, upcast = guess)]
        async fn weigh(&self, _call: &Call, approve: &bool) -> StepResult<u32> {
            let _ = approve;
            ::core::result::Result::Ok(1)
        }

        #[step(tx, compensate = none, since = 3)]
        async fn note(&self, _tx: &mut MemoryTx, weigh: &u32) -> StepResult<u32> {
            ::core::result::Result::Ok(*weigh)
        }

        #[step(request, pivot, probe = find_pay)]
        fn pay(&self, weigh: &u32, note: ::core::option::Option<&u32>) -> StepResult<Request<Ask, Told>> {
            ::core::result::Result::Ok(Request::new(Ask(weigh + note.unwrap_or(&0))))
        }

        #[step(child)]
        fn ship(&self, pay: &Told) -> Child<Pack> {
            Child::new(&pay.0)
        }

        #[step(request, for_each = ask)]
        fn tell(&self, item: &Told) -> Request<Ask, Told> {
            Request::new(Ask(item.0))
        }

        #[compensate]
        async fn unwrap(&self, _call: &Call, wrap: &u32, open: &u32) -> StepResult<()> {
            let _ = (wrap, open);
            ::core::result::Result::Ok(())
        }

        #[compensate(timeout = "1m", retry(attempts = forever))]
        fn unask(
            &self,
            item: &u32,
            ask: ::core::option::Option<&Told>,
            wrap: ::core::option::Option<&u32>,
        ) -> Request<Ask, Told> {
            let _ = wrap;
            Request::new(Ask(ask.map_or(*item, |told| told.0)))
        }

        #[probe(retry(attempts = 3), timeout = "1s")]
        async fn find(&self, _call: &Call, item: &u32) -> StepResult<::core::option::Option<Told>> {
            ::core::result::Result::Ok(::core::option::Option::Some(Told(*item)))
        }

        #[probe]
        async fn find_pay(&self, _call: &Call, input: &Order, weigh: &u32) -> StepResult<::core::option::Option<Told>> {
            let _ = (input, weigh);
            ::core::result::Result::Ok(::core::option::Option::None)
        }

        #[upcast]
        fn guess(&self, approve: &bool) -> StepResult<u32> {
            ::core::result::Result::Ok(u32::from(*approve))
        }
    }
}

mod generic {
    use amends::{Child, StepResult, Store, saga};

    pub struct Inner<S>(pub S);

    #[saga(name = "inner", version = 1, input = u8)]
    impl<S: Store> Inner<S> {
        #[step(tx, compensate = none)]
        async fn one(&self, _tx: &mut S::Tx) -> StepResult<u8> {
            Ok(1)
        }
    }

    pub struct Outer<S>(pub S);

    #[saga(name = "outer", version = 1, input = u8)]
    impl<S: Store> Outer<S> {
        #[step(child)]
        fn inner(&self, input: &u8) -> Child<Inner<S>> {
            Child::new(input)
        }
    }
}

#[test]
fn every_kind_and_every_key_together() {
    let outer = generic::Outer::<amends::MemoryStore>::DEFINITION;
    assert_eq!(outer.to_string(), "saga outer v1\n  child inner (inner), undone by child child");

    let store = amends::MemoryStore::new();
    let _ = amends::Sagas::builder(store).register(shop::Shop).register(shop::Pack).build().unwrap();
    let ask: amends::StepRef<Vec<messages::Told>> = shop::Shop::ASK;
    assert_eq!((ask.name(), shop::Shop::OPEN.name()), ("ask", "start_up"));
    assert_eq!(shop::Shop::DEFINITION.steps[2].reads.join(" "), "item start_up wrap");
    fn output<G: amends::Saga<Output = Vec<messages::Told>>>() {}
    output::<shop::Shop>();
}
