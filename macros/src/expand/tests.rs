//! Slips of the pen.

use proc_macro2::{Group, TokenStream, TokenTree};

use super::saga;
use crate::source;

const ATTRIBUTE: &str = r#"name = "trip", version = 2, since = 1, input = Order, deadline = "1h", crate = "amends""#;
const BLOCK: &str = r#"
    impl<S: Store> Trip<S> {
        const SEATS: u8 = 1;
        #[step(tx, compensate = leave, name = "fly", retry(attempts = 3, backoff = "1s..1m"), timeout = "1m")]
        pub async fn flight(&self, tx: &mut S::Tx, input: &Order) -> StepResult<Seat> { body }
        #[step(call, after = [flight], pivot)]
        async fn hotel(&self, call: &Call, flight: &Seat) -> StepResult<()> { body }
        #[compensate(retry(attempts = forever))]
        async fn leave(&self, call: &Call, flight: Option<&Seat>) -> StepResult<()> { body }
    }"#;

const ALL_KINDS: &str = r#"
    impl Order {
        #[step(tx, compensate = none, savepoint, skippable, delay = "1m")]
        async fn wrap(&self, tx: &mut StepTx, input: &Cart) -> StepResult<Gift> { body }
        #[step(request, compensate = unask, alternate = borrow, probe = look, for_each = input.lines, concurrency = 2)]
        fn ask(&self, item: &Line, wrap: Option<&Gift>) -> Request<Ask, Told> { body }
        #[step(child, after = wrap, since = 2, upcast = guess)]
        fn borrow(&self) -> StepResult<Child<Borrow>> { body }
        #[step(signal, after = ask, early = refuse)]
        fn wait(&self, ask: &[Told]) -> Signal<u8> { body }
        #[compensate]
        fn unask(&self, item: &Line, ask: Option<&Told>) -> Request<Ask, Told> { body }
        #[probe(timeout = "1s")]
        async fn look(&self, call: &Call, item: &Line) -> StepResult<Option<Told>> { body }
        #[upcast]
        fn guess(&self, input: &Cart) -> StepResult<Told> { body }
    }"#;

fn tokens(text: &str) -> TokenStream {
    text.parse().expect("the text has balanced brackets")
}

/// Every stream that lacks one token, at any depth, and every one that has one twice.
fn mistakes(tokens: &TokenStream) -> Vec<TokenStream> {
    let tokens: Vec<TokenTree> = tokens.clone().into_iter().collect();
    let with = |index: usize, replaced: &[TokenTree]| -> TokenStream {
        tokens[..index].iter().chain(replaced).chain(&tokens[index + 1..]).cloned().collect()
    };
    let mut all = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        all.push(with(index, &[]));
        all.push(with(index, &[token.clone(), token.clone()]));
        if let TokenTree::Group(group) = token {
            let inner = mistakes(&group.stream()).into_iter();
            all.extend(inner.map(|inner| with(index, &[Group::new(group.delimiter(), inner).into()])));
        }
    }
    all
}

/// Checks that the block comes back, and with it either the glue or a message.
fn check(attribute: TokenStream, block: &TokenStream) {
    let expanded = saga(attribute, block.clone()).to_string();
    let given_back = source::without_markers(block.clone()).to_string();
    assert!(expanded.contains(&given_back), "the block is gone: {expanded}");
    let (glue, errors) = (expanded.contains("fn execute"), expanded.contains("compile_error"));
    assert!(glue != errors, "glue: {glue}, errors: {errors}: {expanded}");
}

#[test]
fn a_slip_of_the_pen_neither_panics_nor_swallows_the_block() {
    for block in [BLOCK, ALL_KINDS] {
        check(tokens(ATTRIBUTE), &tokens(block));
        let expanded = saga(tokens(ATTRIBUTE), tokens(block)).to_string();
        assert!(expanded.contains("fn execute"), "what is sound gives no glue: {expanded}");
        for block in mistakes(&tokens(block)) {
            check(tokens(ATTRIBUTE), &block);
        }
    }
    for attribute in mistakes(&tokens(ATTRIBUTE)) {
        check(attribute, &tokens(BLOCK));
    }
}
