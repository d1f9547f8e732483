//! Data that breaks the schema of its type and version.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::{Notes, Order, Placed, World};
use millpond_events::{DecodeError, Error, Incoming, RawEvent, SchemaViolation, Schemas};
use serde_json::json;
use std::sync::Arc;

fn schemas() -> Schemas {
    let placed = json!({
        "type": "object",
        "properties": {
            "order": { "type": "integer", "maximum": 99 },
            "dish": { "type": "string", "minLength": 1 },
            "mail": { "type": "string", "format": "email" },
        },
        "required": ["order", "dish"],
    });
    Schemas::new().add("order.placed", 2, &placed).unwrap()
}

fn violation(path: &str, rule: &str, count: usize) -> SchemaViolation {
    let (path, rule) = (path.to_owned(), rule.to_owned());
    SchemaViolation { event_type: "order.placed".to_owned(), version: 2, path, rule, count }
}

#[test]
fn a_publish_names_path_and_rule() {
    let world = World::with(|builder| builder.validator(Arc::new(schemas())));
    let topic = world.store.topic("events").open().unwrap();
    let refused = |data: &str| match world.bus.publish(RawEvent::new("order.placed", 2, "application/json", data)) {
        Err(Error::Schema(violation)) => violation,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused("{}"), violation("", "/required", 2));
    assert_eq!(refused(r#"{"order":100,"dish":"x"}"#), violation("/order", "/properties/order/maximum", 1));
    let mail = r#"{"order":1,"dish":"x","mail":"nobody"}"#;
    assert_eq!(refused(mail), violation("/mail", "/properties/mail/format", 1));
    assert_eq!(refused("{"), violation("", "JSON", 1));
    let dish = Placed { order: 1, dish: String::new() };
    assert!(world.bus.publish(Order::Placed(dish)).is_err());
    assert!(world.bus.publish_all([Order::placed(1), Order::placed(100)]).is_err());
    assert!(topic.reader().open().unwrap().try_next().unwrap().is_none(), "nothing was written");
    world.bus.publish(Order::placed(99)).unwrap();
    // Other versions have no schema.
    world.bus.publish(RawEvent::new("order.placed", 1, "application/json", "100")).unwrap();
    let error = Error::Schema(refused(r#"{"order":100,"dish":"secret"}"#)).to_string();
    assert!(error.contains("/properties/order/maximum at /order") && !error.contains("secret"), "{error}");
}

#[test]
fn what_comes_from_elsewhere_is_checked_if_wanted() {
    for checks in [true, false] {
        let world = World::with(|builder| builder.validator(Arc::new(schemas())).validate_received(checks));
        let elsewhere = millpond_events::Bus::builder(&world.store).open().unwrap();
        elsewhere.publish_all([Order::placed(100), Order::placed(1)]).unwrap();
        let notes = Notes::default();
        let noted = notes.clone();
        let handler = move |order: &Incoming<Order>| {
            noted.note(format!("{:?}", order.data()));
            Ok(())
        };
        let kitchen = world.bus.subscriber("kitchen").on("order.*", handler).open().unwrap();
        assert_eq!(kitchen.drain().unwrap(), 2);
        let expected = DecodeError::Schema(violation("/order", "/properties/order/maximum", 1)).to_string();
        assert_eq!(world.dead("kitchen"), if checks { vec![expected] } else { vec![] });
        assert_eq!(notes.taken().len(), if checks { 1 } else { 2 });
    }
}

#[test]
fn what_is_no_schema_is_refused() {
    let add = |schemas: Schemas, schema| match schemas.add("order.placed", 2, &schema) {
        Err(Error::InvalidSchema { event_type, version: 2, .. }) => assert_eq!(event_type, "order.placed"),
        other => panic!("{other:?}"),
    };
    add(Schemas::new(), json!({ "type": "nothing" }));
    add(Schemas::new(), json!(7));
    add(Schemas::new(), json!({ "$ref": "https://example.org/elsewhere.json" }));
    add(schemas(), json!({}));
}
