//! Bytes, times and messages as text and as JSON.
//!
//! Never here: printing.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How much of a payload a line of text shows.
const SHOWN: usize = 60;

/// Text that moves no cursor, hides nothing and colors nothing: what controls a terminal, or the direction of writing, is written out.
pub fn plain(text: &str) -> String {
    let is_harmless = |char: char| {
        !char.is_control()
            && !matches!(char, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    text.chars()
        .map(|char| if is_harmless(char) { char.to_string() } else { char.escape_default().to_string() })
        .collect()
}

/// A short text for bytes, on one line.
pub fn short(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => {
            let mut shown = plain(&text.chars().take(SHOWN).collect::<String>());
            if text.chars().nth(SHOWN).is_some() {
                shown.push('…');
            }
            shown
        }
        Err(_) => format!("{} bytes", bytes.len()),
    }
}

/// Puts bytes under `name` where they are text, else under `name_base64`.
pub fn put(map: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => drop(map.insert(name.to_owned(), text.into())),
        Err(_) => drop(map.insert(format!("{name}_base64"), STANDARD.encode(bytes).into())),
    }
}

/// What [`put`] put there; `None` if there is neither name.
pub fn taken(map: &Map<String, Value>, name: &str) -> Result<Option<Vec<u8>>, String> {
    if let Some(value) = map.get(name).filter(|value| !value.is_null()) {
        return Ok(Some(value.as_str().ok_or_else(|| format!("{name:?} is no text"))?.as_bytes().to_vec()));
    }
    let name = format!("{name}_base64");
    let Some(value) = map.get(&name) else { return Ok(None) };
    let text = value.as_str().ok_or_else(|| format!("{name:?} is no text"))?;
    STANDARD.decode(text).map(Some).map_err(|error| format!("{name:?}: {error}"))
}

/// Headers as JSON, in their order.
pub fn headers_json<'a>(headers: impl Iterator<Item = (&'a str, &'a [u8])>) -> Vec<Value> {
    let as_json = |(name, value): (&str, &[u8])| {
        let mut header = Map::new();
        header.insert("name".to_owned(), name.into());
        put(&mut header, "value", value);
        header.into()
    };
    headers.map(as_json).collect()
}

/// A message as JSON, with `more` beside it.
pub fn message<'a>(
    more: Value,
    key: Option<&[u8]>,
    headers: impl Iterator<Item = (&'a str, &'a [u8])>,
    timestamp: SystemTime,
    payload: &[u8],
) -> Value {
    let mut map = match more {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    if let Some(key) = key {
        put(&mut map, "key", key);
    }
    let headers = headers_json(headers);
    if !headers.is_empty() {
        map.insert("headers".to_owned(), headers.into());
    }
    map.insert("timestamp_ms".to_owned(), json!(millis(timestamp)));
    put(&mut map, "payload", payload);
    map.into()
}

/// Milliseconds since 1970.
pub fn millis(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// How long ago that was.
pub fn since(time: SystemTime, now: SystemTime) -> String {
    age(Some(now.duration_since(time).unwrap_or_default()))
}

/// An age, in the largest unit of which it has at least one.
pub fn age(age: Option<Duration>) -> String {
    let Some(age) = age else { return "-".to_owned() };
    let seconds = age.as_secs();
    match seconds {
        0 => format!("{}ms", age.as_millis()),
        1..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_come_back_from_json() {
        for bytes in [&b"two pizzas"[..], b"", b"\xff\x00", "\u{1f355}\n".as_bytes()] {
            let json = message(json!({"id": "1"}), Some(bytes), [("h", bytes)].into_iter(), UNIX_EPOCH, bytes);
            let Value::Object(map) = json else { panic!("an object") };
            assert_eq!(taken(&map, "key"), Ok(Some(bytes.to_vec())));
            assert_eq!(taken(&map, "payload"), Ok(Some(bytes.to_vec())));
            let header = map["headers"][0].as_object().expect("an object");
            assert_eq!(taken(header, "value"), Ok(Some(bytes.to_vec())));
        }
        let none = Map::new();
        assert_eq!(taken(&none, "key"), Ok(None));
    }

    #[test]
    fn a_line_stays_a_line() {
        assert_eq!(short(b"one\ntwo\t\x1b[31m"), "one\\ntwo\\t\\u{1b}[31m");
        assert_eq!(plain("a\u{202e}b"), "a\\u{202e}b");
        assert_eq!(short(&[b'x'; 61]).chars().count(), 61);
        assert_eq!(short(&[0xff; 9]), "9 bytes");
        assert_eq!(age(Some(Duration::from_secs(7_300))), "2h");
    }
}
