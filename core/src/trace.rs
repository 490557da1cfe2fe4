//! W3C trace context, carried with sagas and messages so that one trace shows them all.

use std::collections::BTreeMap;

use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing_opentelemetry::OpenTelemetrySpanExt;

struct Headers<'a>(&'a mut BTreeMap<String, String>);

impl Injector for Headers<'_> {
    fn set(&mut self, key: &str, value: String) {
        // An absent state is injected as an empty one; it says nothing, so it is not carried.
        if !value.is_empty() {
            self.0.insert(key.to_owned(), value);
        }
    }
}

struct Parent<'a>(&'a str);

impl Extractor for Parent<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == "traceparent").then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent"]
    }
}

/// The `traceparent` and `tracestate` of the current span; empty when no trace is being recorded.
pub fn current_headers() -> BTreeMap<String, String> {
    let mut headers = BTreeMap::new();
    let context = tracing::Span::current().context();
    TraceContextPropagator::new().inject_context(&context, &mut Headers(&mut headers));
    headers
}

/// Makes `span` a child of the trace that a stored `traceparent` names.
pub fn set_parent(span: &tracing::Span, traceparent: Option<&str>) {
    if let Some(parent) = traceparent {
        let context = TraceContextPropagator::new().extract(&Parent(parent));
        // A span that no subscriber records has no context to set; there is nothing to lose.
        let _ = span.set_parent(context);
    }
}
