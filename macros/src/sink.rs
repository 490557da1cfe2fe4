//! Collects every mistake, so that one build shows them all.

use proc_macro2::{Span, TokenStream};
use syn::Error;

#[derive(Default)]
pub(crate) struct Sink(Vec<Error>);

impl Sink {
    pub(crate) fn push(&mut self, error: Error) {
        self.0.push(error);
    }

    pub(crate) fn at(&mut self, span: Span, message: impl std::fmt::Display) {
        self.push(Error::new(span, message));
    }

    /// Keeps a value, or its error.
    pub(crate) fn take<T>(&mut self, result: syn::Result<T>) -> Option<T> {
        result.map_err(|error| self.push(error)).ok()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many mistakes are known: when the number is the same afterwards, what was just read is sound.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn into_tokens(self) -> TokenStream {
        self.0.iter().map(Error::to_compile_error).collect()
    }
}
