//! What `#[saga]` and `#[derive(Message)]` accept: that it compiles is most of the test.
#![allow(missing_docs, missing_debug_implementations, dead_code, unreachable_pub, clippy::all, clippy::pedantic)]

pub mod all_kinds;
pub mod another_name_of_the_crate;
pub mod generic_message;
pub mod lists;
pub mod made_by_a_macro;
pub mod nested_alternates;
pub mod ordinary_methods;
pub mod place_order;
pub mod scheduled;
pub mod shadowed_names;
pub mod views;
