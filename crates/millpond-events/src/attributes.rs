//! The attributes of events: those of CloudEvents 1.0, and the extensions that this crate uses.

use crate::error::{DecodeError, Error, Result};
use crate::event::EventType;
use crate::time::Timestamp;
use std::borrow::Cow;
use std::collections::BTreeMap;
use uuid::Uuid;

/// What an event says of itself: the attributes of CloudEvents 1.0, and the extensions that this crate uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes {
    pub(crate) id: String,
    pub(crate) event_type: String,
    pub(crate) version: u32,
    pub(crate) source: String,
    pub(crate) subject: Option<String>,
    pub(crate) time: Option<Timestamp>,
    pub(crate) content_type: Option<String>,
    pub(crate) correlation_id: Option<String>,
    pub(crate) causation_id: Option<String>,
    pub(crate) depth: u32,
    pub(crate) traceparent: Option<String>,
    pub(crate) extensions: BTreeMap<String, String>,
}

impl Attributes {
    /// The event's id, the same at every delivery. [`Event::new`](crate::Event::new) draws a UUID of version 7.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The event's type, such as `order.placed`.
    #[must_use]
    pub fn event_type(&self) -> &str {
        &self.event_type
    }

    /// The version of the type (extension `dataversion`), 1 if it has none.
    #[must_use]
    pub const fn version(&self) -> u32 {
        self.version
    }

    /// The context in which the event happened, a URI reference. Empty until it is published, unless it was set.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// What the event is about within its source: the id of an order, for example. Events of one subject keep their order.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        self.subject.as_deref()
    }

    /// When it happened.
    #[must_use]
    pub const fn time(&self) -> Option<Timestamp> {
        self.time
    }

    /// The content type of the data; JSON if it has none.
    #[must_use]
    pub fn content_type(&self) -> Option<&str> {
        self.content_type.as_deref()
    }

    /// The id that all events share which have one beginning (extension `correlationid`); its own id if it is a beginning.
    #[must_use]
    pub fn correlation_id(&self) -> &str {
        self.correlation_id.as_deref().unwrap_or(&self.id)
    }

    /// The id of the event in whose handler this one was published (extension `causationid`).
    #[must_use]
    pub fn causation_id(&self) -> Option<&str> {
        self.causation_id.as_deref()
    }

    /// How many events stand before this one in its chain of causes (extension `causationdepth`).
    #[must_use]
    pub const fn depth(&self) -> u32 {
        self.depth
    }

    /// The W3C trace context (extension `traceparent`).
    #[must_use]
    pub fn traceparent(&self) -> Option<&str> {
        self.traceparent.as_deref()
    }

    /// The value of another extension, or of `dataschema`.
    #[must_use]
    pub fn extension(&self, name: &str) -> Option<&str> {
        self.extensions.get(name).map(String::as_str)
    }

    /// Whether the content type says that the data is JSON.
    pub(crate) fn is_json(&self) -> bool {
        let Some(content_type) = &self.content_type else { return true };
        let media = content_type.split(';').next().unwrap_or_default().trim();
        media.eq_ignore_ascii_case("application/json")
            || media.eq_ignore_ascii_case("text/json")
            || media.len() > 5 && media.get(media.len() - 5..).is_some_and(|end| end.eq_ignore_ascii_case("+json"))
    }
}

impl Attributes {
    /// Those of a new event, under an id of its own.
    pub(crate) fn new(event_type: String, version: u32) -> Self {
        Self {
            id: Uuid::now_v7().to_string(),
            event_type,
            version,
            source: String::new(),
            subject: None,
            time: None,
            content_type: Some("application/json".to_owned()),
            correlation_id: None,
            causation_id: None,
            depth: 0,
            traceparent: None,
            extensions: BTreeMap::new(),
        }
    }

    pub(crate) fn decode<T: EventType>(&self, data: &[u8]) -> Result<T, DecodeError> {
        if !self.is_json() {
            let content_type = self.content_type.as_deref().unwrap_or_default().chars().take(16).collect();
            return Err(DecodeError::NotJson { content_type });
        }
        T::decode(&self.event_type, self.version, data)
    }

    /// Each attribute that has a value, by its CloudEvents name, but for the content type and `specversion`.
    pub(crate) fn each<'a>(&'a self, mut each: impl FnMut(&'a str, Cow<'a, str>)) {
        each("id", Cow::Borrowed(&self.id));
        each("source", Cow::Borrowed(&self.source));
        each("type", Cow::Borrowed(&self.event_type));
        if self.version != 1 {
            each("dataversion", Cow::Owned(self.version.to_string()));
        }
        if let Some(time) = self.time {
            each("time", Cow::Owned(time.to_string()));
        }
        if self.depth != 0 {
            each("causationdepth", Cow::Owned(self.depth.to_string()));
        }
        let texts = [
            ("subject", &self.subject),
            ("correlationid", &self.correlation_id),
            ("causationid", &self.causation_id),
            ("traceparent", &self.traceparent),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                each(name, Cow::Borrowed(text));
            }
        }
        self.extensions.iter().for_each(|(name, value)| each(name, Cow::Borrowed(value)));
    }

    /// Whether all of it is allowed in a CloudEvent.
    pub(crate) fn check(&self) -> Result<()> {
        let mut wrong = None;
        self.each(|name, value| {
            let is_name = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
            let reason = match &*value {
                _ if name.is_empty() || !is_name => "no name of lower-case letters and digits",
                "" => "empty",
                value if value.chars().any(char::is_control) => "text with control characters",
                _ => return,
            };
            wrong.get_or_insert(Error::InvalidAttribute { attribute: name.to_owned(), reason });
        });
        let reserved = self.extensions.keys().find(|name| RESERVED.contains(&name.as_str()));
        if let Some(name) = reserved {
            let reason = "an attribute with a place of its own";
            wrong.get_or_insert(Error::InvalidAttribute { attribute: name.clone(), reason });
        }
        wrong.map_or(Ok(()), Err)
    }
}

/// Names that no extension can have.
const RESERVED: &[&str] = &[
    "id",
    "source",
    "specversion",
    "type",
    "dataversion",
    "time",
    "subject",
    "correlationid",
    "causationid",
    "causationdepth",
    "traceparent",
    "datacontenttype",
    "data",
];
