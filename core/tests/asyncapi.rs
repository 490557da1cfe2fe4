//! The `AsyncAPI` document says what the types say.
#![allow(missing_docs, clippy::unwrap_used)]

use amends::asyncapi::Document;
use amends::{Encoding, EncodingError, Message};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Goods.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Line {
    sku: String,
    qty: u32,
}

#[derive(Serialize, Deserialize, JsonSchema, Message)]
#[message(name = "order.placed", key = order)]
struct OrderPlaced {
    order: i64,
    lines: Vec<Line>,
    note: Option<String>,
}

#[derive(Serialize, Deserialize, JsonSchema, Message)]
#[message(name = "stock/out", key = order)]
struct OutOfStock {
    order: i64,
    missing: Line,
}

#[derive(Message)]
#[message(name = "label.printed", encoding = Pdf)]
struct LabelPrinted(Vec<u8>);

struct Pdf;

impl Encoding<LabelPrinted> for Pdf {
    const CONTENT_TYPE: &'static str = "application/pdf";

    fn encode(message: &LabelPrinted) -> Result<Vec<u8>, EncodingError> {
        Ok(message.0.clone())
    }

    fn decode(payload: &[u8]) -> Result<LabelPrinted, EncodingError> {
        Ok(LabelPrinted(payload.into()))
    }
}

fn document() -> Document {
    Document::new("Orders", "1.2.0")
        .exchange("shop")
        .sends::<OrderPlaced>()
        .receives::<OutOfStock>()
        .sends_bytes::<LabelPrinted>()
}

/// Validated with the JSON Schema that `AsyncAPI` publishes: `schemas/3.0.0.json` of `asyncapi/spec-json-schemas`.
#[test]
fn the_document_is_the_one_that_was_validated() {
    expect_test::expect_file!["asyncapi.json"].assert_eq(&format!("{}\n", document()));
}

#[test]
fn every_reference_leads_somewhere() {
    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    let json = document().to_json();
    let mut found = Vec::new();
    references(&json, &mut found);
    assert!(found.contains(&"#/components/schemas/Line"), "{found:?}");
    for reference in found {
        assert!(json.pointer(reference.strip_prefix('#').unwrap()).is_some(), "{reference}");
    }
}
