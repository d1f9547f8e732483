//! Dead letters as events: the notice that the engine publishes with the move of a message, as `event.failed`.

use crate::cloudevents::TYPE_HEADER;
use crate::event::{Encoded, EventType, Variant, json};
use crate::time::Timestamp;
use crate::transport::{WireMessage, WireRef};
use serde_json::{Value, json as value};
use std::borrow::Cow;

/// The type of the events that tell of dead letters.
pub(crate) const EVENT_FAILED: &str = "event.failed";
/// The headers of a notice begin so, and the first of them has this name.
const PREFIX: &str = "dead-letter-";
pub(crate) const NOTICE_HEADER: &str = "dead-letter-id";

/// The data of the event `event.failed`: an event became a dead letter of a subscriber. Published in the same write, for subscribers with
/// [`SubscriberBuilder::tell_failed`](crate::SubscriberBuilder::tell_failed).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventFailed {
    /// The id of the message that failed, as [`millpond::DeadLetter::origin`] shows it.
    pub message_id: String,
    /// The topic of the bus.
    pub topic: String,
    /// The subscriber.
    pub subscriber: String,
    /// How its last attempt ended: `nacked`, `rejected`, `expired`, `crashed` or `closed`.
    pub cause: String,
    /// The text of the last failure, cut to 120 bytes.
    pub reason: String,
    /// How many attempts it had.
    pub attempts: u32,
    /// When it became a dead letter, in milliseconds since 1970.
    pub time_ms: u64,
}

impl EventType for EventFailed {
    const VARIANTS: &'static [Variant<Self>] =
        &[Variant::new(EVENT_FAILED, 1, |data| json(data).and_then(|value: Value| Self::read(&value)))];

    fn encode(&self) -> Encoded {
        Encoded::json(EVENT_FAILED, 1, &self.to_value())
    }
}

impl EventFailed {
    fn to_value(&self) -> Value {
        value!({
            "message_id": self.message_id,
            "topic": self.topic,
            "subscriber": self.subscriber,
            "cause": self.cause,
            "reason": self.reason,
            "attempts": self.attempts,
            "time_ms": self.time_ms,
        })
    }

    fn read(value: &Value) -> serde_json::Result<Self> {
        use serde::de::Error;
        let text = |name: &'static str| {
            let text = value.get(name).and_then(Value::as_str).map(str::to_owned);
            text.ok_or_else(|| serde_json::Error::missing_field(name))
        };
        let number = |name: &'static str| {
            value.get(name).and_then(Value::as_u64).ok_or_else(|| serde_json::Error::missing_field(name))
        };
        Ok(Self {
            message_id: text("message_id")?,
            topic: text("topic")?,
            subscriber: text("subscriber")?,
            cause: text("cause")?,
            reason: text("reason")?,
            attempts: u32::try_from(number("attempts")?).unwrap_or(u32::MAX),
            time_ms: number("time_ms")?,
        })
    }
}

/// The notice as an event, if the message is one.
pub(crate) fn from_notice(message: &dyn WireRef) -> Option<WireMessage> {
    let mut is_notice = false;
    message.each_header(&mut |name, _| is_notice |= name == NOTICE_HEADER);
    if !is_notice {
        return None;
    }
    let mut found = EventFailed {
        message_id: String::new(),
        topic: String::new(),
        subscriber: String::new(),
        cause: String::new(),
        reason: String::from_utf8_lossy(message.payload()).into_owned(),
        attempts: 0,
        time_ms: 0,
    };
    message.each_header(&mut |name, value| {
        let Some(name) = name.strip_prefix(PREFIX) else { return };
        let value = String::from_utf8_lossy(value).into_owned();
        match name {
            "id" => found.message_id = value,
            "topic" => found.topic = value,
            "group" => found.subscriber = value,
            "cause" => found.cause = value,
            "attempts" => found.attempts = value.parse().unwrap_or_default(),
            "time-ms" => found.time_ms = value.parse().unwrap_or_default(),
            _ => {}
        }
    });
    let time = Timestamp::from_unix_ms(i64::try_from(found.time_ms).unwrap_or(i64::MAX));
    let headers: [(&'static str, String); 7] = [
        ("ce_specversion", "1.0".to_owned()),
        // A message fails once at a time, in a subscriber.
        ("ce_id", format!("{}/{}/{}", found.message_id, found.subscriber, found.time_ms)),
        ("ce_source", format!("/{}/{}", found.topic, found.subscriber)),
        (TYPE_HEADER, EVENT_FAILED.to_owned()),
        ("ce_time", time.to_string()),
        ("ce_correlationid", found.message_id.clone()),
        ("content-type", "application/json".to_owned()),
    ];
    let headers = headers.into_iter().map(|(name, value)| (Cow::Borrowed(name), value.into_bytes())).collect();
    let payload = found.to_value().to_string().into_bytes();
    Some(WireMessage { key: message.key().map(<[u8]>::to_vec), headers, payload })
}

/// The event's type, as the headers of a message have it.
pub(crate) fn type_of<'m>(header: impl Fn(&str) -> Option<&'m [u8]>) -> Option<&'m str> {
    match header(TYPE_HEADER) {
        Some(name) => std::str::from_utf8(name).ok(),
        None => header(NOTICE_HEADER).map(|_| EVENT_FAILED),
    }
}
