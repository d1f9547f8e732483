//! As much of HTTP/1.1 as a client of one request needs.

use serde_json::{Value, json};
use std::fmt::Display;
use std::io::{Read, Write};
use std::net::TcpStream;

/// The answer to a request.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
}

impl Answer {
    pub const fn new(status: u16, body: Value) -> Self {
        Self { status, body }
    }

    pub fn error(status: u16, error: impl Display) -> Self {
        Self::new(status, json!({ "error": error.to_string() }))
    }
}

/// Sends a request, and reads the answer.
pub fn call(
    address: &str,
    method: &str,
    path: &str,
    body: &str,
) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
    let mut stream = TcpStream::connect(address)?;
    let len = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n{body}"
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let status = text.split(' ').nth(1).ok_or("an answer without a status")?.parse()?;
    let (_, body) = text.split_once("\r\n\r\n").ok_or("an answer without a body")?;
    Ok(Answer { status, body: serde_json::from_str(body)? })
}
