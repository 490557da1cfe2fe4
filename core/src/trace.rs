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

struct Parent<'a> {
    traceparent: &'a str,
    tracestate: Option<&'a str>,
}

impl Extractor for Parent<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            "traceparent" => Some(self.traceparent),
            "tracestate" => self.tracestate,
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent", "tracestate"]
    }
}

/// The `traceparent` and `tracestate` of the current span; empty when no trace is being recorded.
pub fn current_headers() -> BTreeMap<String, String> {
    headers_of(&tracing::Span::current())
}

/// The `traceparent` and `tracestate` of a span; those of the current one if it is recorded by nobody.
pub(crate) fn headers_of(span: &tracing::Span) -> BTreeMap<String, String> {
    let mut headers = BTreeMap::new();
    let context = if span.is_disabled() { tracing::Span::current().context() } else { span.context() };
    TraceContextPropagator::new().inject_context(&context, &mut Headers(&mut headers));
    headers
}

/// Makes `span` a child of the trace that a stored `traceparent` names.
pub fn set_parent(span: &tracing::Span, traceparent: Option<&str>) {
    if let Some(traceparent) = traceparent {
        adopt(span, &Parent { traceparent, tracestate: None });
    }
}

/// Makes `span` a child of the span that the headers of a message name.
pub fn set_parent_from(span: &tracing::Span, headers: &BTreeMap<String, String>) {
    if let Some(traceparent) = headers.get("traceparent") {
        adopt(span, &Parent { traceparent, tracestate: headers.get("tracestate").map(String::as_str) });
    }
}

fn adopt(span: &tracing::Span, parent: &Parent<'_>) {
    // A span that no subscriber records has no context to set; there is nothing to lose.
    let _ = span.set_parent(TraceContextPropagator::new().extract(parent));
}
