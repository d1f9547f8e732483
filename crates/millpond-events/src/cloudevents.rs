//! CloudEvents 1.0 on messages: attributes as headers and the data as payload (binary), or all of it as one JSON text (structured).
//!
//! Headers are named as in the Kafka binding of CloudEvents: `ce_id`, `ce_type` and so on, with UTF-8 values, and `content-type`.

use crate::attributes::Attributes;
use crate::error::{DecodeError, Error, Result};
use crate::event::{Outgoing, RawEvent};
use crate::transport::{WireMessage, WireRef};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

const PREFIX: &str = "ce_";
const STRUCTURED: &str = "application/cloudevents+json";
pub(crate) const TYPE_HEADER: &str = "ce_type";

/// The text of a header's name for an attribute, without an allocation for those of CloudEvents.
fn header_name(attribute: &str) -> Cow<'static, str> {
    match attribute {
        "id" => Cow::Borrowed("ce_id"),
        "source" => Cow::Borrowed("ce_source"),
        "type" => Cow::Borrowed(TYPE_HEADER),
        "time" => Cow::Borrowed("ce_time"),
        "subject" => Cow::Borrowed("ce_subject"),
        "correlationid" => Cow::Borrowed("ce_correlationid"),
        "causationid" => Cow::Borrowed("ce_causationid"),
        other => Cow::Owned(format!("{PREFIX}{other}")),
    }
}

impl Outgoing {
    fn checked(self) -> Result<(Attributes, Vec<u8>)> {
        self.attributes.check()?;
        match self.data {
            Ok(data) => Ok((self.attributes, data)),
            Err(reason) => Err(Error::Encode { event_type: self.attributes.event_type, reason }),
        }
    }

    /// The event as a message in binary mode. The subject is the message's key.
    ///
    /// # Errors
    /// `InvalidAttribute` if an attribute is not allowed; `Encode` if the data could not be written as JSON.
    pub fn to_message(self) -> Result<WireMessage> {
        let (attributes, payload) = self.checked()?;
        let mut headers: Vec<(Cow<'static, str>, Vec<u8>)> = Vec::with_capacity(10);
        headers.push((Cow::Borrowed("ce_specversion"), b"1.0".to_vec()));
        attributes.each(|name, value| headers.push((header_name(name), value.into_owned().into_bytes())));
        if let Some(content_type) = attributes.content_type {
            headers.push((Cow::Borrowed("content-type"), content_type.into_bytes()));
        }
        Ok(WireMessage { key: attributes.subject.map(String::into_bytes), headers, payload })
    }

    /// The event as one JSON text: the structured mode of CloudEvents.
    ///
    /// # Errors
    /// As [`Outgoing::to_message`]; `Encode` if the content type says JSON and the data is none.
    pub fn to_json(self) -> Result<Vec<u8>> {
        let (attributes, data) = self.checked()?;
        let mut object = Map::new();
        object.insert("specversion".to_owned(), "1.0".into());
        attributes.each(|name, value| {
            object.insert(name.to_owned(), value.into_owned().into());
        });
        if let Some(content_type) = &attributes.content_type {
            object.insert("datacontenttype".to_owned(), content_type.as_str().into());
        }
        let encode = |error: serde_json::Error| {
            let reason = format!("line {} column {} is no JSON", error.line(), error.column());
            Error::Encode { event_type: attributes.event_type.clone(), reason }
        };
        if data.is_empty() {
            // An event may have no data, whatever its content type.
        } else if attributes.is_json() {
            object.insert("data".to_owned(), serde_json::from_slice(&data).map_err(encode)?);
        } else {
            object.insert("data_base64".to_owned(), base64::encode(&data).into());
        }
        serde_json::to_vec(&object).map_err(encode)
    }
}

/// The names of attributes that have a place of their own.
const KNOWN: [&str; 11] = [
    "specversion",
    "id",
    "type",
    "dataversion",
    "source",
    "subject",
    "time",
    "correlationid",
    "causationid",
    "causationdepth",
    "traceparent",
];

/// Attributes while they are read, by name.
#[derive(Default)]
struct Found {
    /// In the order of [`KNOWN`].
    known: [Option<String>; KNOWN.len()],
    others: BTreeMap<String, String>,
}

impl Found {
    fn insert(&mut self, name: &str, value: String) -> Result<(), DecodeError> {
        let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        if !is_name {
            return Err(wrong(name, "no name of lower-case letters and digits"));
        }
        let before = match KNOWN.iter().position(|known| *known == name) {
            Some(nth) => self.known[nth].replace(value),
            None => self.others.insert(name.to_owned(), value),
        };
        before.map_or(Ok(()), |_| Err(wrong(name, "given twice")))
    }

    fn take(&mut self, name: &str) -> Result<Option<String>, DecodeError> {
        let found = match KNOWN.iter().position(|known| *known == name) {
            Some(nth) => self.known[nth].take(),
            None => self.others.remove(name),
        };
        match found {
            Some(value) if value.is_empty() => Err(wrong(name, "empty")),
            value => Ok(value),
        }
    }

    fn is_empty(&self) -> bool {
        self.others.is_empty() && self.known.iter().all(Option::is_none)
    }

    fn required(&mut self, name: &'static str) -> Result<String, DecodeError> {
        self.take(name)?.ok_or_else(|| wrong(name, "missing"))
    }

    fn number(&mut self, name: &'static str, default: u32) -> Result<u32, DecodeError> {
        let Some(text) = self.take(name)? else { return Ok(default) };
        text.parse().map_err(|_| wrong(name, "no whole number below 4294967296"))
    }

    fn finish(mut self, content_type: Option<String>) -> Result<Attributes, DecodeError> {
        if self.required("specversion")? != "1.0" {
            return Err(wrong("specversion", "another than 1.0"));
        }
        let time = self.take("time")?.map(|text| text.parse()).transpose();
        Ok(Attributes {
            id: self.required("id")?,
            event_type: self.required("type")?,
            version: self.number("dataversion", 1)?,
            source: self.required("source")?,
            subject: self.take("subject")?,
            time: time.map_err(|_| wrong("time", "no RFC 3339 time"))?,
            content_type,
            correlation_id: self.take("correlationid")?,
            causation_id: self.take("causationid")?,
            depth: self.number("causationdepth", 0)?,
            traceparent: self.take("traceparent")?,
            extensions: self.others,
        })
    }
}

fn wrong(attribute: &str, reason: &'static str) -> DecodeError {
    DecodeError::NotCloudEvent { attribute: attribute.chars().take(64).collect(), reason }
}

/// The attributes of a message, and its data if that stands in the payload as it is.
pub(crate) fn read(message: &dyn WireRef) -> Result<(Attributes, Option<Vec<u8>>), DecodeError> {
    let (mut found, mut content_type, mut failed) = (Found::default(), None, None);
    message.each_header(&mut |name, value| {
        if failed.is_some() {
            return;
        }
        let attribute = name.strip_prefix(PREFIX);
        if attribute.is_none() && !name.eq_ignore_ascii_case("content-type") {
            return;
        }
        let Ok(text) = std::str::from_utf8(value) else {
            failed = Some(wrong(attribute.unwrap_or(name), "no UTF-8 text"));
            return;
        };
        match attribute {
            Some(attribute) => failed = found.insert(attribute, text.to_owned()).err(),
            None => content_type = Some(text.to_owned()),
        }
    });
    if let Some(failed) = failed {
        return Err(failed);
    }
    let is_structured = content_type.as_deref().is_some_and(|content_type| {
        content_type.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(STRUCTURED)
    });
    if is_structured {
        let event = from_json(message.payload())?;
        let (attributes, data) = event.into_parts();
        return Ok((attributes, Some(data)));
    }
    if found.is_empty() {
        return Err(wrong("message", "without attributes"));
    }
    Ok((found.finish(content_type)?, None))
}

impl RawEvent {
    /// Reads an event from a message, in binary or structured mode.
    ///
    /// # Errors
    /// `NotCloudEvent`.
    pub fn from_message(message: &dyn WireRef) -> Result<Self, DecodeError> {
        let (attributes, data) = read(message)?;
        Ok(Self::received(Arc::new(attributes), data.unwrap_or_else(|| message.payload().to_vec())))
    }

    /// Reads an event from one JSON text: the structured mode of CloudEvents. Numbers and booleans among the extensions are read as text.
    ///
    /// # Errors
    /// `NotCloudEvent`.
    pub fn from_json(text: &[u8]) -> Result<Self, DecodeError> {
        from_json(text)
    }
}

fn from_json(text: &[u8]) -> Result<RawEvent, DecodeError> {
    let mut object: Map<String, Value> =
        serde_json::from_slice(text).map_err(|_| wrong("message", "no JSON object"))?;
    let data = (object.remove("data"), object.remove("data_base64"));
    let mut found = Found::default();
    for (name, value) in object {
        let value = match value {
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            Value::Bool(flag) => flag.to_string(),
            Value::Null => continue,
            Value::Array(_) | Value::Object(_) => return Err(wrong(&name, "no text, number or boolean")),
        };
        found.insert(&name, value)?;
    }
    let content_type = found.take("datacontenttype")?;
    let attributes = found.finish(content_type)?;
    let data = match data {
        (Some(_), Some(_)) => return Err(wrong("data_base64", "given beside data")),
        (Some(Value::String(text)), None) if !attributes.is_json() => text.into_bytes(),
        (Some(data), None) => data.to_string().into_bytes(),
        (None, Some(Value::String(text))) => base64::decode(&text).ok_or_else(|| wrong("data_base64", "no base64"))?,
        (None, Some(_)) => return Err(wrong("data_base64", "no text")),
        (None, None) => Vec::new(),
    };
    Ok(RawEvent::received(Arc::new(attributes), data))
}

/// Base64 with padding, for the data of structured events that is no JSON.
mod base64 {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    pub(super) fn encode(data: &[u8]) -> String {
        let mut text = String::with_capacity(data.len().div_ceil(3) * 4);
        for chunk in data.chunks(3) {
            let byte = |nth: usize| u32::from(chunk.get(nth).copied().unwrap_or(0));
            let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
            for nth in 0..4 {
                let digit = ALPHABET[(bits >> (18 - 6 * nth) & 63) as usize];
                text.push(if nth <= chunk.len() { char::from(digit) } else { '=' });
            }
        }
        text
    }

    pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
        let stem = text.strip_suffix("==").or_else(|| text.strip_suffix('=')).unwrap_or(text);
        if !text.len().is_multiple_of(4) {
            return None;
        }
        let mut data = Vec::with_capacity(stem.len() * 3 / 4);
        for chunk in stem.as_bytes().chunks(4) {
            let mut bits = 0_u32;
            for digit in chunk {
                bits = bits << 6 | u32::try_from(ALPHABET.iter().position(|known| known == digit)?).ok()?;
            }
            let len = chunk.len() * 6 / 8;
            bits <<= 6 * (4 - chunk.len());
            let [_, bytes @ ..] = [(bits >> 24) as u8, (bits >> 16) as u8, (bits >> 8) as u8, bits as u8];
            data.extend_from_slice(&bytes[..len]);
        }
        Some(data)
    }
}
