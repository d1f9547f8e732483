//! Events as messages and as JSON, and what is no event.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::{Order, Placed};
use millpond_events::transport::WireMessage;
use millpond_events::{DecodeError, Error, Event, EventType, Outgoing, RawEvent, Timestamp};
use serde_json::{Value, json};

fn message(event: impl Into<Outgoing>) -> WireMessage {
    event.into().to_message().unwrap()
}

fn full() -> Event<Order> {
    Event::new(Order::placed(7))
        .with_id("o-7")
        .with_source("/shop/é")
        .with_subject("order-7")
        .with_time("2026-11-28T09:30:00.250Z".parse::<Timestamp>().unwrap())
        .with_correlation_id("request-1")
        .with_traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        .with_extension("tenant", "blue")
        .with_extension("dataschema", "https://example.org/order/2")
}

#[test]
fn binary_mode_is_that_of_the_specification() {
    let message = message(full());
    let mut headers: Vec<_> = message
        .headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", std::str::from_utf8(value).unwrap()))
        .collect();
    headers.sort();
    assert_eq!(
        headers,
        [
            "ce_correlationid: request-1",
            "ce_dataschema: https://example.org/order/2",
            "ce_dataversion: 2",
            "ce_id: o-7",
            "ce_source: /shop/é",
            "ce_specversion: 1.0",
            "ce_subject: order-7",
            "ce_tenant: blue",
            "ce_time: 2026-11-28T09:30:00.250Z",
            "ce_traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "ce_type: order.placed",
            "content-type: application/json",
        ]
    );
    assert_eq!(message.key.as_deref(), Some(&b"order-7"[..]));
    assert_eq!(message.payload, br#"{"order":7,"dish":"soup"}"#);
}

#[test]
fn structured_mode_is_that_of_the_specification() {
    let text = Outgoing::from(full()).to_json().unwrap();
    let expected = json!({
        "specversion": "1.0", "id": "o-7", "source": "/shop/é", "type": "order.placed", "subject": "order-7",
        "time": "2026-11-28T09:30:00.250Z", "datacontenttype": "application/json", "dataversion": "2",
        "correlationid": "request-1", "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "tenant": "blue", "dataschema": "https://example.org/order/2", "data": {"order": 7, "dish": "soup"},
    });
    assert_eq!(serde_json::from_slice::<Value>(&text).unwrap(), expected);
}

#[test]
fn both_modes_give_the_event_back() {
    let binary = RawEvent::from_message(&message(full())).unwrap();
    let text = Outgoing::from(full()).to_json().unwrap();
    let structured = RawEvent::from_json(&text).unwrap();
    let content_type = b"application/cloudevents+json; charset=utf-8".to_vec();
    let wrapped = WireMessage { key: None, headers: vec![("Content-Type".into(), content_type)], payload: text };
    let unwrapped = RawEvent::from_message(&wrapped).unwrap();
    for event in [&binary, &structured, &unwrapped] {
        let typed = event.decode::<Order>().unwrap();
        assert_eq!(typed.data(), &Order::placed(7));
        assert_eq!((typed.id(), typed.source(), typed.subject()), ("o-7", "/shop/é", Some("order-7")));
        assert_eq!((typed.event_type(), typed.version(), typed.depth()), ("order.placed", 2, 0));
        assert_eq!(typed.time().map(Timestamp::unix_ms), Some(1_795_858_200_250));
        assert_eq!((typed.correlation_id(), typed.causation_id()), ("request-1", None));
        assert_eq!(typed.extension("tenant"), Some("blue"));
        assert_eq!(typed.extension("dataschema"), Some("https://example.org/order/2"));
    }
}

#[test]
fn bytes_of_any_kind_survive_both_modes() {
    for len in 0..9 {
        let data: Vec<u8> = (0..len).map(|byte| 250 + byte % 6).collect();
        let event = RawEvent::new("photo.taken", 3, "image/png", data.clone()).with_source("/camera");
        let structured = RawEvent::from_json(&Outgoing::from(event.clone()).to_json().unwrap()).unwrap();
        let binary = RawEvent::from_message(&message(event.clone())).unwrap();
        assert_eq!((&structured, &binary), (&event, &event));
        let is_typed = matches!(binary.decode::<Order>(), Err(DecodeError::NotJson { content_type }) if content_type == "image/png");
        assert!(is_typed);
    }
    let plain = br#"{"specversion":"1.0","id":"1","source":"/","type":"t","datacontenttype":"text/plain","data":"hi"}"#;
    assert_eq!(RawEvent::from_json(plain).unwrap().data(), b"hi");
}

#[test]
fn event_without_data_survives_both_modes() {
    for content_type in ["application/json", "image/png"] {
        let event = RawEvent::new("shop.opened", 1, content_type, "").with_source("/shop");
        let text = Outgoing::from(event.clone()).to_json().unwrap();
        let object: Value = serde_json::from_slice(&text).unwrap();
        assert!(object.get("data").is_none() && object.get("data_base64").is_none(), "{object}");
        let (structured, binary) =
            (RawEvent::from_json(&text).unwrap(), RawEvent::from_message(&message(event.clone())));
        assert_eq!((structured, binary.unwrap()), (event.clone(), event));
    }
}

#[test]
fn new_events_have_ids_that_rise() {
    let ids: Vec<String> = (0..100).map(|_| Event::new(Order::Cancelled).id().to_owned()).collect();
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    assert!(ids.iter().all(|id| id.len() == 36 && id.as_bytes()[14] == b'7'));
}

#[test]
fn variants_and_versions_have_typed_outcomes() {
    let decode = |event_type: &str, version, data: &str| Order::decode(event_type, version, data.as_bytes());
    assert_eq!(
        decode("order.placed", 2, r#"{"order":1,"dish":"x"}"#),
        Ok(Order::Placed(Placed { order: 1, dish: "x".to_owned() }))
    );
    assert_eq!(decode("order.placed", 1, "5"), Ok(Order::placed(5)));
    assert_eq!(decode("order.cancelled", 1, "null"), Ok(Order::Cancelled));
    assert_eq!(decode("order.lost", 1, "5"), Err(DecodeError::UnknownType { event_type: "order.lost".to_owned() }));
    assert_eq!(
        decode("order.placed", 3, "5"),
        Err(DecodeError::UnknownVersion { event_type: "order.placed".to_owned(), version: 3 })
    );
    let invalid = |version, is_json, column| {
        Err(DecodeError::InvalidData { event_type: "order.placed".to_owned(), version, is_json, line: 1, column })
    };
    assert_eq!(decode("order.placed", 2, r#"{"order":"secret"}"#), invalid(2, true, 17));
    assert_eq!(decode("order.placed", 2, "{5"), invalid(2, false, 2));
}

#[test]
fn errors_of_data_show_none_of_it() {
    let error = Order::decode("order.placed", 2, br#"{"order":"secret"}"#).unwrap_err();
    assert_eq!(error.to_string(), "the data of order.placed version 2 does not fit its type at line 1 column 17");
}

#[test]
fn what_is_no_cloud_event_is_refused_by_name() {
    let reason = |change: &dyn Fn(&mut WireMessage)| {
        let mut message = message(full());
        change(&mut message);
        match RawEvent::from_message(&message) {
            Err(DecodeError::NotCloudEvent { attribute, reason }) => format!("{attribute}: {reason}"),
            other => panic!("{other:?}"),
        }
    };
    let without = |name: &'static str| reason(&move |message| message.headers.retain(|(other, _)| *other != name));
    let with = |name: &'static str, value: &'static [u8]| {
        reason(&move |message| {
            message.headers.retain(|(other, _)| *other != name);
            message.headers.push((name.into(), value.to_vec()));
        })
    };
    for name in ["specversion", "id", "source", "type"] {
        let header: &'static str = format!("ce_{name}").leak();
        assert_eq!(without(header), format!("{name}: missing"));
        assert_eq!(with(header, b""), format!("{name}: empty"));
    }
    assert_eq!(with("ce_specversion", b"0.3"), "specversion: another than 1.0");
    assert_eq!(with("ce_time", b"yesterday"), "time: no RFC 3339 time");
    assert_eq!(with("ce_dataversion", b"two"), "dataversion: no whole number below 4294967296");
    assert_eq!(with("ce_subject", b"\xff"), "subject: no UTF-8 text");
    assert_eq!(with("ce_Tenant", b"x"), "Tenant: no name of lower-case letters and digits");
    assert_eq!(reason(&|message| message.headers.push(("ce_id".into(), b"x".to_vec()))), "id: given twice");
    assert_eq!(reason(&|message| message.headers.clear()), "message: without attributes");
}

#[test]
fn structured_text_that_is_no_cloud_event_is_refused() {
    let reason = |text: &str| match RawEvent::from_json(text.as_bytes()) {
        Err(DecodeError::NotCloudEvent { attribute, reason }) => format!("{attribute}: {reason}"),
        other => panic!("{other:?}"),
    };
    let with = |more: &str| reason(&format!(r#"{{"specversion":"1.0","id":"1","source":"/","type":"t"{more}}}"#));
    assert_eq!(reason("[]"), "message: no JSON object");
    assert_eq!(reason("{"), "message: no JSON object");
    assert_eq!(reason("{}"), "specversion: missing");
    assert_eq!(with(r#","tenant":{}"#), "tenant: no text, number or boolean");
    assert_eq!(with(r#","data":1,"data_base64":"AA==""#), "data_base64: given beside data");
    for wrong in ["A", "A===", "====", "AA=A", "A*==", "AAAAA"] {
        assert_eq!(with(&format!(r#","data_base64":"{wrong}""#)), "data_base64: no base64", "{wrong}");
    }
}

#[test]
fn attributes_that_are_not_allowed_are_not_published() {
    let reason = |event: Event<Order>| match Outgoing::from(event).to_message() {
        Err(Error::InvalidAttribute { attribute, reason }) => format!("{attribute}: {reason}"),
        other => panic!("{other:?}"),
    };
    assert_eq!(reason(full().with_id("")), "id: empty");
    assert_eq!(reason(full().with_source("")), "source: empty");
    assert_eq!(reason(full().with_subject("a\nb")), "subject: text with control characters");
    assert_eq!(reason(full().with_extension("Tenant", "x")), "Tenant: no name of lower-case letters and digits");
    assert_eq!(reason(full().with_extension("dataversion", "9")), "dataversion: an attribute with a place of its own");
}

#[test]
fn event_of_an_old_version_is_published_as_the_program_writes_it() {
    let old = RawEvent::new("order.placed", 1, "application/json", "7").with_source("/test");
    let event = old.decode::<Order>().unwrap();
    let message = message(event);
    let read = RawEvent::from_message(&message).unwrap();
    assert_eq!((read.event_type(), read.version()), ("order.placed", 2));
    assert_eq!(read.decode::<Order>().unwrap().data(), &Order::placed(7));
}
