//! The text of a scenario: commands, the replies that they must get, and comments.

use std::time::Duration;

/// A command and the lines that must answer it.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    /// Its line in the file, from 1.
    pub line: usize,
    pub command: String,
    pub reply: Vec<String>,
}

/// Reads a file: `> ` begins a command, the lines below it are its reply, `# ` begins a comment.
pub fn steps(text: &str) -> Result<Vec<Step>, String> {
    let mut steps: Vec<Step> = Vec::new();
    let mut is_reply = false;
    for (line, content) in (1..).zip(text.lines()) {
        if let Some(command) = content.strip_prefix("> ") {
            steps.push(Step { line, command: command.to_owned(), reply: Vec::new() });
            is_reply = true;
        } else if content.is_empty() || content == "#" || content.starts_with("# ") {
            is_reply = false;
        } else {
            let step = steps.last_mut().filter(|_| is_reply);
            step.ok_or_else(|| format!("{line}: a reply without a command"))?.reply.push(content.to_owned());
        }
    }
    Ok(steps)
}

/// The words of a command. Each is taken once, and none may be left.
#[derive(Debug)]
pub struct Words {
    plain: std::vec::IntoIter<String>,
    quoted: std::vec::IntoIter<String>,
    options: Vec<(String, String)>,
}

impl Words {
    pub fn of(command: &str) -> Result<Self, String> {
        let (mut plain, mut quoted, mut options) = (Vec::new(), Vec::new(), Vec::new());
        let mut rest = command.trim_start();
        while !rest.is_empty() {
            if let Some(text) = rest.strip_prefix('"') {
                let (text, after) = text.split_once('"').ok_or("a quote is not closed")?;
                quoted.push(text.to_owned());
                rest = after.trim_start();
                continue;
            }
            let (word, after) = rest.split_once(' ').unwrap_or((rest, ""));
            match word.split_once('=') {
                Some((name, value)) => options.push((name.to_owned(), value.to_owned())),
                None => plain.push(word.to_owned()),
            }
            rest = after.trim_start();
        }
        Ok(Self { plain: plain.into_iter(), quoted: quoted.into_iter(), options })
    }

    /// The next word; `what` says what is missing if there is none.
    pub fn next(&mut self, what: &str) -> Result<String, String> {
        self.plain.next().ok_or_else(|| format!("{what} is missing"))
    }

    /// The next word, as a number.
    pub fn number(&mut self, what: &str) -> Result<usize, String> {
        number(&self.next(what)?)
    }

    /// The next word, as a duration.
    pub fn duration(&mut self) -> Result<Duration, String> {
        duration(&self.next("a duration")?)
    }

    /// The next text in quotes.
    pub fn text(&mut self) -> Result<String, String> {
        self.quoted.next().ok_or_else(|| "a text in quotes is missing".to_owned())
    }

    /// All texts in quotes that are left.
    pub fn texts(&mut self) -> Vec<String> {
        self.quoted.by_ref().collect()
    }

    /// The value of `name=value`, as `read` reads it.
    pub fn option<T>(&mut self, name: &str, read: fn(&str) -> Result<T, String>) -> Result<Option<T>, String> {
        let found = self.options.iter().position(|(other, _)| other == name);
        found.map(|index| read(&self.options.remove(index).1)).transpose()
    }

    /// Fails if a word was not taken.
    pub fn end(mut self) -> Result<(), String> {
        let option = self.options.pop().map(|(name, _)| name);
        match self.plain.next().or(self.quoted.next()).or(option) {
            Some(word) => Err(format!("{word:?} is one word too many")),
            None => Ok(()),
        }
    }
}

pub fn text(value: &str) -> Result<String, String> {
    Ok(value.to_owned())
}

/// Reads `type:order.placed`.
pub fn header(value: &str) -> Result<(String, String), String> {
    let header = value.split_once(':').ok_or_else(|| format!("{value:?} is no header"))?;
    Ok((header.0.to_owned(), header.1.to_owned()))
}

pub fn flag(value: &str) -> Result<bool, String> {
    value.parse().map_err(|_| format!("{value:?} is neither true nor false"))
}

pub fn number<T: std::str::FromStr>(value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("{value:?} is no number"))
}

/// Reads `50ms`, `30s`, `2m` and `1h`.
pub fn duration(value: &str) -> Result<Duration, String> {
    let digits = value.find(|char: char| !char.is_ascii_digit()).unwrap_or(value.len());
    let unit = match &value[digits..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(format!("{value:?} is no duration; write 50ms, 30s, 2m or 1h")),
    };
    number::<u64>(&value[..digits]).map(|count| Duration::from_millis(count * unit))
}
