//! An [AsyncAPI 3.0](https://www.asyncapi.com/docs/reference/specification/v3.0.0) document of the messages of a service.

use std::collections::BTreeMap;
use std::fmt;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::{AsJson, Encoding, Message};

/// What a service sends and receives, for people and tools in any language; printed, it is the document in JSON.
///
/// Each message is a channel of its name: its routing key at a topic exchange, as the relay publishes it. The schemas of the
/// payloads are JSON Schema, draft 7, made from the types, so that the document cannot say anything else than the program does.
///
/// ```
/// use amends::{Message, asyncapi::Document};
/// use schemars::JsonSchema;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize, JsonSchema, Message)]
/// #[message(name = "order.placed", key = order)]
/// struct OrderPlaced { order: u64 }
///
/// #[derive(Serialize, Deserialize, JsonSchema, Message)]
/// #[message(name = "payment.taken", key = order)]
/// struct PaymentTaken { order: u64, cents: u64 }
///
/// let document = Document::new("Orders", "1.2.0").sends::<OrderPlaced>().receives::<PaymentTaken>();
/// let json = document.to_json();
/// assert_eq!(json["asyncapi"], "3.0.0");
/// assert_eq!(json["channels"]["order.placed"]["bindings"]["amqp"]["exchange"]["name"], "amends");
/// assert_eq!(json["operations"]["receive.payment.taken"]["action"], "receive");
/// println!("{document}");
/// ```
#[derive(Clone)]
pub struct Document {
    title: String,
    version: String,
    exchange: String,
    messages: BTreeMap<&'static str, Described>,
    operations: BTreeMap<String, Operation>,
    schemas: SchemaGenerator,
}

/// A message that is sent or received.
#[derive(Debug, Clone)]
struct Described {
    content_type: &'static str,
    /// Of a message that is not JSON there is none.
    schema: Option<Value>,
}

#[derive(Debug, Clone, Copy)]
struct Operation {
    action: &'static str,
    message: &'static str,
}

/// JSON Schemas may refer to each other by these.
const SCHEMAS: &str = "/components/schemas";

impl Document {
    /// A document of a service of this title, in this version of its interface.
    pub fn new(title: impl Into<String>, version: impl Into<String>) -> Self {
        let settings = SchemaSettings::draft07().for_serialize().with(|settings| {
            settings.definitions_path = SCHEMAS.into();
            settings.meta_schema = None;
        });
        Self {
            title: title.into(),
            version: version.into(),
            exchange: "amends".into(),
            messages: BTreeMap::new(),
            operations: BTreeMap::new(),
            schemas: settings.into_generator(),
        }
    }

    /// The topic exchange of all messages. `amends`, the default of the relay.
    #[must_use]
    pub fn exchange(mut self, exchange: impl Into<String>) -> Self {
        self.exchange = exchange.into();
        self
    }

    /// The service publishes `M`.
    #[must_use]
    pub fn sends<M: Message<Encoding = AsJson> + JsonSchema>(self) -> Self {
        self.json::<M>("send")
    }

    /// The service consumes `M`.
    #[must_use]
    pub fn receives<M: Message<Encoding = AsJson> + JsonSchema>(self) -> Self {
        self.json::<M>("receive")
    }

    /// As [`sends`](Self::sends), of a message in another format than JSON: the document names its content type only.
    #[must_use]
    pub fn sends_bytes<M: Message>(self) -> Self {
        self.operation::<M>("send", None)
    }

    /// As [`receives`](Self::receives), of a message in another format than JSON.
    #[must_use]
    pub fn receives_bytes<M: Message>(self) -> Self {
        self.operation::<M>("receive", None)
    }

    fn json<M: Message + JsonSchema>(mut self, action: &'static str) -> Self {
        let schema = self.schemas.subschema_for::<M>().to_value();
        self.operation::<M>(action, Some(schema))
    }

    fn operation<M: Message>(mut self, action: &'static str, schema: Option<Value>) -> Self {
        self.messages.insert(M::NAME, Described { content_type: M::Encoding::CONTENT_TYPE, schema });
        self.operations.insert(id(&format!("{action}.{}", M::NAME)), Operation { action, message: M::NAME });
        self
    }

    /// The document.
    pub fn to_json(&self) -> Value {
        let channels = self.messages.keys().map(|&name| (id(name), self.channel(name)));
        let messages = self.messages.iter().map(|(&name, message)| (id(name), message.to_json(name)));
        let operations = self.operations.iter().map(|(id, operation)| (id.clone(), operation.to_json()));
        let schemas = self.schemas.clone().take_definitions(true);
        json!({
            "asyncapi": "3.0.0",
            "info": { "title": self.title, "version": self.version },
            "defaultContentType": "application/json",
            "channels": channels.collect::<Map<_, _>>(),
            "operations": operations.collect::<Map<_, _>>(),
            "components": {
                "messages": messages.collect::<Map<_, _>>(),
                "messageTraits": { "amends": { "headers": headers() } },
                "schemas": schemas,
            },
        })
    }

    fn channel(&self, name: &str) -> Value {
        json!({
            "address": name,
            "messages": { id(name): { "$ref": format!("#/components/messages/{}", id(name)) } },
            "bindings": { "amqp": {
                "is": "routingKey",
                "exchange": { "name": self.exchange, "type": "topic", "durable": true, "autoDelete": false, "vhost": "/" },
                "bindingVersion": "0.3.0",
            } },
        })
    }
}

impl Described {
    fn to_json(&self, name: &str) -> Value {
        let mut message = json!({
            "name": name,
            "contentType": self.content_type,
            "traits": [{ "$ref": "#/components/messageTraits/amends" }],
            "bindings": { "amqp": { "messageType": name, "bindingVersion": "0.3.0" } },
        });
        if let Some(schema) = &self.schema {
            message["payload"] = schema.clone();
        }
        message
    }
}

impl Operation {
    fn to_json(self) -> Value {
        let channel = id(self.message);
        let binding = match self.action {
            // As the relay does: persistent, and returned if no queue takes it.
            "send" => json!({ "deliveryMode": 2, "mandatory": true, "bindingVersion": "0.3.0" }),
            _ => json!({ "ack": true, "bindingVersion": "0.3.0" }),
        };
        json!({
            "action": self.action,
            "channel": { "$ref": format!("#/channels/{channel}") },
            "messages": [{ "$ref": format!("#/channels/{channel}/messages/{channel}") }],
            "bindings": { "amqp": binding },
        })
    }
}

/// What every message carries.
fn headers() -> Value {
    let text = |description: &str| json!({ "type": "string", "description": description });
    json!({
        "type": "object",
        "required": ["cloudEvents_specversion", "cloudEvents_id", "cloudEvents_type", "cloudEvents_source"],
        "properties": {
            "cloudEvents_specversion": { "const": "1.0" },
            "cloudEvents_id": text("Copies of one message have the same."),
            "cloudEvents_type": text("The name of the message."),
            "cloudEvents_source": text("The service that published it."),
            "cloudEvents_time": { "type": "string", "format": "date-time" },
            "cloudEvents_partitionkey": text("The key: messages of one key are first delivered in the order of their commits."),
            "amends-seq": { "type": "integer", "description": "Grows from message to message of one key." },
            "content-encoding": text("The codecs that its payload went through, if any, in their order."),
            "amends-claim-check": text("Where its payload is kept, if it is too large for the message."),
            "traceparent": text("W3C trace context."),
            "tracestate": text("W3C trace context."),
            "cloudEvents_traceparent": text("The same as an attribute of the event."),
            "cloudEvents_tracestate": text("The same as an attribute of the event."),
        },
    })
}

/// Keys of components have letters, digits, `.`, `-` and `_`.
fn id(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || ".-_".contains(c) { c } else { '_' }).collect()
}

impl fmt::Display for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.to_json())
    }
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document")
            .field("title", &self.title)
            .field("version", &self.version)
            .field("operations", &self.operations)
            .finish_non_exhaustive()
    }
}
