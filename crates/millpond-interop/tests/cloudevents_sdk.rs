//! Events go to the SDK of CloudEvents and back, in both modes, and lose nothing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use cloudevents::event::{ExtensionValue, SpecVersion};
use cloudevents::message::{
    BinaryDeserializer, BinarySerializer, Encoding, Error, MessageAttributeValue, MessageDeserializer,
    StructuredDeserializer, StructuredSerializer,
};
use cloudevents::{AttributesReader, Data, EventBuilder, EventBuilderV10};
use millpond::Store;
use millpond_events::transport::{Transport, WireMessage};
use millpond_events::{Bus, Embedded, Encoded, EventType, Incoming, Outgoing, RawEvent, Timestamp, Variant, json};
use serde_json::{Value, json as value};
use std::sync::{Arc, Mutex};

type SdkEvent = cloudevents::Event;

/// A message with the headers of the Kafka binding, which the SDK reads as it does one of Kafka.
struct AsMessage(WireMessage);

impl AsMessage {
    fn header(&self, wanted: &str) -> Option<&str> {
        let found = self.0.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| std::str::from_utf8(value).unwrap())
    }
}

impl BinaryDeserializer for AsMessage {
    fn deserialize_binary<R: Sized, V: BinarySerializer<R>>(self, mut visitor: V) -> Result<R, Error> {
        let version = SpecVersion::try_from(self.header("ce_specversion").unwrap())?;
        let names = version.attribute_names();
        visitor = visitor.set_spec_version(version)?;
        if let Some(content_type) = self.header("content-type") {
            visitor =
                visitor.set_attribute("datacontenttype", MessageAttributeValue::String(content_type.to_owned()))?;
        }
        for (name, text) in &self.0.headers {
            let Some(name) = name.strip_prefix("ce_").filter(|name| *name != "specversion") else { continue };
            let text = MessageAttributeValue::String(String::from_utf8(text.clone()).unwrap());
            visitor = match names.contains(&name) {
                true => visitor.set_attribute(name, text)?,
                false => visitor.set_extension(name, text)?,
            };
        }
        if self.0.payload.is_empty() { visitor.end() } else { visitor.end_with_data(self.0.payload) }
    }
}

impl StructuredDeserializer for AsMessage {
    fn deserialize_structured<R: Sized, V: StructuredSerializer<R>>(self, visitor: V) -> Result<R, Error> {
        visitor.set_structured_event(self.0.payload)
    }
}

impl MessageDeserializer for AsMessage {
    fn encoding(&self) -> Encoding {
        let is_structured = self.header("content-type").is_some_and(|text| text.starts_with("application/cloudevents"));
        if is_structured { Encoding::STRUCTURED } else { Encoding::BINARY }
    }
}

/// The message that the SDK makes of an event.
#[derive(Default)]
struct Written(WireMessage);

impl Written {
    fn with(mut self, name: String, value: &MessageAttributeValue) -> Self {
        self.0.headers.push((name.into(), value.to_string().into_bytes()));
        self
    }
}

impl BinarySerializer<WireMessage> for Written {
    fn set_spec_version(self, version: SpecVersion) -> Result<Self, Error> {
        Ok(self.with("ce_specversion".to_owned(), &MessageAttributeValue::String(version.to_string())))
    }

    fn set_attribute(self, name: &str, value: MessageAttributeValue) -> Result<Self, Error> {
        let header = if name == "datacontenttype" { "content-type".to_owned() } else { format!("ce_{name}") };
        Ok(self.with(header, &value))
    }

    fn set_extension(self, name: &str, value: MessageAttributeValue) -> Result<Self, Error> {
        Ok(self.with(format!("ce_{name}"), &value))
    }

    fn end_with_data(mut self, bytes: Vec<u8>) -> Result<WireMessage, Error> {
        self.0.payload = bytes;
        Ok(self.0)
    }

    fn end(self) -> Result<WireMessage, Error> {
        Ok(self.0)
    }
}

impl StructuredSerializer<WireMessage> for Written {
    fn set_structured_event(mut self, bytes: Vec<u8>) -> Result<WireMessage, Error> {
        self.0.headers.push(("content-type".into(), b"application/cloudevents+json".to_vec()));
        self.0.payload = bytes;
        Ok(self.0)
    }
}

/// Events of every kind, as this project makes them.
fn ours() -> Vec<RawEvent> {
    let base = |content_type: &str, data: &[u8]| {
        RawEvent::new("order.placed", 2, content_type, data).with_id("o-7").with_source("/shop/7")
    };
    let full = base("application/json", br#"{"dish":"b\u00f6rek","count":2,"price":9.5,"tags":[null,true]}"#)
        .with_subject("order 7/ü")
        .with_time("2026-11-28T09:30:00.25Z".parse::<Timestamp>().unwrap())
        .with_correlation_id("request-1")
        .with_traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        .with_extension("tenant", "\"blue\" and 100 %")
        .with_extension("dataschema", "https://example.org/order/2");
    vec![
        full,
        base("application/json", b"null"),
        base("application/json", b"\"text\""),
        base("application/vnd.shop+json", b"[1,2]"),
        base("image/png", &[0, 159, 146, 150, 255]),
        base("text/plain", "grüße\n".as_bytes()),
        base("application/xml", b"<a/>").with_source("https://example.org/shop?x=1#y"),
        base("application/octet-stream", b""),
        base("application/json", b"1")
            .with_id("\u{1f355}")
            .with_source("urn:uuid:6e8bc430-9c3a-11d9-9669-0800200c9a66"),
    ]
}

fn sdk_json(event: &SdkEvent) -> Value {
    serde_json::to_value(event).unwrap()
}

#[test]
fn structured_event_survives_the_sdk() {
    for event in ours() {
        let text = Outgoing::from(event.clone()).to_json().unwrap();
        let sdk: SdkEvent = serde_json::from_slice(&text).unwrap();
        assert_eq!((sdk.id(), sdk.ty(), sdk.subject()), (event.id(), event.event_type(), event.subject()));
        assert_eq!(sdk.time().map(|time| time.timestamp_millis()), event.time().map(Timestamp::unix_ms));
        assert_eq!(sdk.extension("dataversion"), Some(&ExtensionValue::String("2".to_owned())));
        let back = RawEvent::from_json(&serde_json::to_vec(&sdk).unwrap()).unwrap();
        assert_eq!(same(&back), same(&event));
    }
}

#[test]
fn binary_event_survives_the_sdk() {
    for event in ours() {
        let message = Outgoing::from(event.clone()).to_message().unwrap();
        let sdk = MessageDeserializer::into_event(AsMessage(message)).unwrap();
        assert_eq!((sdk.id(), sdk.ty(), sdk.source().as_str()), (event.id(), event.event_type(), event.source()));
        let data = match sdk.data() {
            Some(Data::Binary(bytes)) => bytes.clone(),
            Some(Data::String(text)) => text.clone().into_bytes(),
            Some(Data::Json(json)) => json.to_string().into_bytes(),
            None => Vec::new(),
        };
        assert_eq!(json_or_bytes(&data), json_or_bytes(event.data()));
        let back = RawEvent::from_message(&sdk.deserialize_binary(Written::default()).unwrap()).unwrap();
        assert_eq!(same(&back), same(&event));
    }
}

/// Data as JSON if it is: the SDK is free to write it otherwise.
fn json_or_bytes(data: &[u8]) -> Result<Value, Vec<u8>> {
    serde_json::from_slice(data).map_err(|_| data.to_vec())
}

/// All that an event says, with JSON as a value.
fn same(event: &RawEvent) -> (Vec<String>, Result<Value, Vec<u8>>) {
    let attributes = [
        Some(event.id()),
        Some(event.event_type()),
        Some(event.source()),
        event.subject(),
        event.content_type(),
        Some(event.correlation_id()),
        event.causation_id(),
        event.traceparent(),
        event.extension("tenant"),
        event.extension("dataschema"),
    ];
    let mut said: Vec<String> = attributes.map(|value| format!("{value:?}")).to_vec();
    said.push(format!("{} {:?}", event.version(), event.time().map(Timestamp::unix_ms)));
    (said, json_or_bytes(event.data()))
}

/// Events as the SDK makes them.
fn theirs() -> Vec<SdkEvent> {
    let base = || EventBuilderV10::new().id("e-1").ty("order.placed").source("https://example.org/shop");
    vec![
        base().build().unwrap(),
        base()
            .subject("order-7")
            .time("2026-11-28T10:30:00.123456789+01:00")
            .extension("tenant", "blue")
            .extension("hot", true)
            .extension("level", 7_i64)
            .extension("correlationid", "request-1")
            .data("application/json", value!({"dish": "soup"}))
            .build()
            .unwrap(),
        base().data_with_schema("application/json", "https://example.org/order", value!([1])).build().unwrap(),
        base().data("image/png", vec![0_u8, 255, 128]).build().unwrap(),
        base().data("text/plain", "hi").build().unwrap(),
    ]
}

#[test]
fn event_of_the_sdk_survives_this_project() {
    for sdk in theirs() {
        let binary = sdk.clone().deserialize_binary(Written::default()).unwrap();
        let structured = sdk.clone().deserialize_structured(Written::default()).unwrap();
        for message in [binary, structured] {
            let event = RawEvent::from_message(&message).unwrap();
            let again = Outgoing::from(event.clone()).to_message().unwrap();
            let back = MessageDeserializer::into_event(AsMessage(again)).unwrap();
            assert_eq!(as_text(&back), as_text(&sdk), "{message:?}");
            let back: SdkEvent = serde_json::from_slice(&Outgoing::from(event).to_json().unwrap()).unwrap();
            assert_eq!(as_text(&back), as_text(&sdk), "{message:?}");
        }
    }
}

/// What an event says: attributes of other types as text, as binary mode has them, times to the millisecond, and no data as none.
fn as_text(event: &SdkEvent) -> Value {
    let mut object = sdk_json(event);
    let fields = object.as_object_mut().unwrap();
    let data = match event.data() {
        Some(Data::Json(json)) => json_or_bytes(json.to_string().as_bytes()),
        Some(Data::String(text)) => json_or_bytes(text.as_bytes()),
        Some(Data::Binary(bytes)) => json_or_bytes(bytes),
        None => Err(Vec::new()),
    };
    fields.remove("data");
    fields.remove("data_base64");
    fields.insert("data".to_owned(), format!("{data:?}").into());
    fields.insert("time".to_owned(), event.time().map(|time| time.timestamp_millis()).into());
    for field in fields.values_mut() {
        if field.is_boolean() || field.is_i64() {
            *field = field.to_string().into();
        }
    }
    object
}

/// An order, by its dish.
struct Placed(String);

impl EventType for Placed {
    const VARIANTS: &'static [Variant<Self>] = &[Variant::new("order.placed", 1, |data| {
        json(data).map(|order: Value| Self(order["dish"].as_str().unwrap_or_default().to_owned()))
    })];

    fn encode(&self) -> Encoded {
        Encoded::json("order.placed", 1, &value!({ "dish": self.0 }))
    }
}

#[test]
fn event_of_the_sdk_reaches_a_typed_handler_in_both_modes() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("data")).unwrap();
    let topic = store.topic("events").open().unwrap();
    let bus = Bus::open(&store).unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let note = Arc::clone(&seen);
    let kitchen = bus.subscriber("kitchen").on("order.*", move |order: &Incoming<Placed>| {
        let said =
            (order.data().0.clone(), order.correlation_id().to_owned(), order.extension("level").map(str::to_owned));
        note.lock().unwrap().push(said);
        Ok(())
    });
    let kitchen = kitchen.open().unwrap();
    let sdk = theirs().remove(1);
    let messages = [
        sdk.clone().deserialize_binary(Written::default()).unwrap(),
        sdk.deserialize_structured(Written::default()).unwrap(),
    ];
    Embedded::new(&store, &topic).publish(&messages).unwrap();
    kitchen.drain().unwrap();
    let said = ("soup".to_owned(), "request-1".to_owned(), Some("7".to_owned()));
    assert_eq!(*seen.lock().unwrap(), [said.clone(), said]);
}
