//! The macros of `amends`; see their re-exports there.

use proc_macro::TokenStream;

/// Placeholder.
#[proc_macro_attribute]
pub fn saga(_args: TokenStream, item: TokenStream) -> TokenStream {
    item
}

/// Placeholder.
#[proc_macro_attribute]
pub fn step(_args: TokenStream, item: TokenStream) -> TokenStream {
    item
}

/// Placeholder.
#[proc_macro_attribute]
pub fn compensate(_args: TokenStream, item: TokenStream) -> TokenStream {
    item
}

/// Placeholder.
#[proc_macro_derive(Message, attributes(message))]
pub fn message(_item: TokenStream) -> TokenStream {
    TokenStream::new()
}
