//! As much of Rust's syntax as the rules need: what is code and what is text, which items are tests, which paths a file
//! names. Never here: what is allowed.

/// A path that the code names, with `use` trees taken apart: `use a::{b, c::d}` gives `a::b` and `a::c::d`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NamedPath {
    pub(crate) line: usize,
    pub(crate) parts: Vec<String>,
    /// The inline modules (`mod x { … }`) around it, outermost first.
    pub(crate) inside: Vec<String>,
}

/// A function with a body: its name, its first line and how many lines it has.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) line: usize,
    pub(crate) len: usize,
}

/// A declaration `mod name;`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Declaration {
    pub(crate) name: String,
    pub(crate) is_test: bool,
}

/// The text with all comments and the insides of all literals replaced by spaces. Lines and columns stay.
pub(crate) fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out: Vec<char> = chars.clone();
    let mut at = 0;
    while at < chars.len() {
        let end = match chars[at] {
            '/' if chars.get(at + 1) == Some(&'/') => find(&chars, at, |rest| rest[0] == '\n'),
            '/' if chars.get(at + 1) == Some(&'*') => end_of_block_comment(&chars, at),
            '"' => end_of_string(&chars, at),
            'r' if !follows_word(&chars, at) => end_of_raw_string(&chars, at),
            '\'' => end_of_char(&chars, at),
            _ => at,
        };
        for place in &mut out[at..end] {
            if *place != '\n' {
                *place = ' ';
            }
        }
        at = end.max(at + 1);
    }
    out.into_iter().collect()
}

fn find(chars: &[char], from: usize, found: impl Fn(&[char]) -> bool) -> usize {
    (from..chars.len()).find(|&at| found(&chars[at..])).unwrap_or(chars.len())
}

fn follows_word(chars: &[char], at: usize) -> bool {
    at > 0 && is_word(chars[at - 1]) && !(chars[at - 1] == 'b' && (at < 2 || !is_word(chars[at - 2])))
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn end_of_block_comment(chars: &[char], start: usize) -> usize {
    let mut depth = 0;
    let mut at = start;
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at.min(chars.len())
}

fn end_of_string(chars: &[char], start: usize) -> usize {
    let mut at = start + 1;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

/// `start` where there is no raw string.
fn end_of_raw_string(chars: &[char], start: usize) -> usize {
    let hashes = chars[start + 1..].iter().take_while(|&&c| c == '#').count();
    if chars.get(start + 1 + hashes) != Some(&'"') {
        return start;
    }
    let close: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    let body = start + hashes + 2;
    (find(chars, body, |rest| rest.starts_with(&close)) + close.len()).min(chars.len())
}

/// `start` where the quote begins a lifetime.
fn end_of_char(chars: &[char], start: usize) -> usize {
    match (chars.get(start + 1), chars.get(start + 2)) {
        (Some('\\'), _) => (find(chars, start + 3, |rest| rest[0] == '\'') + 1).min(chars.len()),
        (Some(_), Some('\'')) => start + 3,
        _ => start,
    }
}

/// Blanked code without the items under `#[cfg(test)]` and `#[test]`; their lines stay, empty.
pub(crate) fn without_tests(code: &str) -> String {
    let mut chars: Vec<char> = code.chars().collect();
    for attribute in ["#[cfg(test)]", "#[test]"] {
        let wanted: Vec<char> = attribute.chars().collect();
        let mut at = 0;
        loop {
            at = find(&chars, at, |rest| rest.starts_with(&wanted));
            if at == chars.len() {
                break;
            }
            let end = end_of_item(&chars, at + wanted.len());
            for place in &mut chars[at..end] {
                if *place != '\n' {
                    *place = ' ';
                }
            }
            at = end;
        }
    }
    chars.into_iter().collect()
}

/// Where the item ends that begins at or after `from`: at its `;`, or at the brace that closes its first one.
fn end_of_item(chars: &[char], from: usize) -> usize {
    let mut depth = 0i32;
    let text: String = chars[from..].iter().take(200).collect();
    let is_use = text.trim_start().starts_with("use ") || text.trim_start().starts_with("pub(crate) use ");
    for (at, c) in chars.iter().enumerate().skip(from) {
        match c {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => {
                depth -= 1;
                if depth == 0 && *c == '}' && !is_use {
                    return at + 1;
                }
            }
            ';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    chars.len()
}

/// The words and signs of blanked code, each with its line.
fn tokens(code: &str) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let mut chars = line.chars().peekable();
        while let Some(c) = chars.next() {
            let mut token = String::from(c);
            if is_word(c) {
                while let Some(more) = chars.next_if(|&c| is_word(c)) {
                    token.push(more);
                }
            } else if c == ':' && chars.next_if_eq(&':').is_some() {
                token.push(':');
            } else if c.is_whitespace() {
                continue;
            }
            found.push((number + 1, token));
        }
    }
    found
}

fn is_name(token: &str) -> bool {
    token.chars().next().is_some_and(is_word)
}

/// All paths of at least two parts, and all that a `use` brings in.
pub(crate) fn paths(code: &str) -> Vec<NamedPath> {
    let tokens = tokens(code);
    let mut found = Vec::new();
    let mut braces: Vec<Option<String>> = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let (line, token) = &tokens[at];
        let word = |back: usize| at.checked_sub(back).map_or("", |place| tokens[place].1.as_str());
        match token.as_str() {
            "{" if word(2) == "mod" => braces.push(Some(word(1).to_owned())),
            "{" => braces.push(None),
            "}" => drop(braces.pop()),
            name if is_name(name) && word(1) != "::" => {
                let inside: Vec<String> = braces.iter().flatten().cloned().collect();
                let mut parts = Vec::new();
                let next = path_at(&tokens, at, &[], &mut parts);
                let is_use = word(1) == "use";
                for parts in parts.into_iter().filter(|parts| is_use || parts.len() > 1) {
                    found.push(NamedPath { line: *line, parts, inside: inside.clone() });
                }
                at = next;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// Reads one path (or tree of them) from `at` and returns where it ends.
fn path_at(tokens: &[(usize, String)], mut at: usize, prefix: &[String], found: &mut Vec<Vec<String>>) -> usize {
    let token = |at: usize| tokens.get(at).map_or("", |(_, token)| token.as_str());
    let mut parts = prefix.to_vec();
    loop {
        match token(at) {
            "{" => {
                at += 1;
                while !matches!(token(at), "}" | "") {
                    at = if token(at) == "," { at + 1 } else { path_at(tokens, at, &parts, found) };
                }
                return at + 1;
            }
            name if is_name(name) || name == "*" => parts.push(name.to_owned()),
            _ => break,
        }
        at += 1;
        if token(at) == "as" && prefix.len() < parts.len() {
            at += 2;
        }
        match (token(at), token(at + 1)) {
            ("::", next) if is_name(next) || next == "{" || next == "*" => at += 1,
            _ => break,
        }
    }
    found.push(parts);
    // Something that is no path at all must not hold the caller up.
    if at == 0 || (prefix.len() < found.last().map_or(0, Vec::len)) { at } else { at + 1 }
}

/// All `mod name;` of a file.
pub(crate) fn declarations(code: &str) -> Vec<Declaration> {
    let kept = without_tests(code);
    let named = |code: &str| -> Vec<String> {
        let tokens = tokens(code);
        let is_declaration = |three: &&[(usize, String)]| three[0].1 == "mod" && three[2].1 == ";";
        tokens.windows(3).filter(is_declaration).map(|three| three[1].1.clone()).collect()
    };
    let outside_tests = named(&kept);
    named(code).into_iter().map(|name| Declaration { is_test: !outside_tests.contains(&name), name }).collect()
}

/// All functions with a body.
pub(crate) fn functions(code: &str) -> Vec<Function> {
    let tokens = tokens(code);
    let mut found = Vec::new();
    for (at, (line, token)) in tokens.iter().enumerate() {
        let name = tokens.get(at + 1).map_or("", |(_, name)| name);
        if token != "fn" || !is_name(name) {
            continue;
        }
        let mut depth = 0i32;
        for (last, token) in &tokens[at..] {
            match token.as_str() {
                "{" | "(" | "[" => depth += 1,
                ")" | "]" => depth -= 1,
                "}" => {
                    depth -= 1;
                    if depth == 0 {
                        found.push(Function { name: name.to_owned(), line: *line, len: last - line + 1 });
                        break;
                    }
                }
                ";" if depth == 0 => break,
                _ => {}
            }
        }
    }
    found
}

/// The lines on which a word stands as a whole word.
pub(crate) fn lines_with_word(code: &str, word: &str) -> Vec<usize> {
    tokens(code).into_iter().filter(|(_, token)| token == word).map(|(line, _)| line).collect()
}

/// The lines on which a macro is called.
pub(crate) fn lines_with_macro(code: &str, name: &str) -> Vec<usize> {
    let calls = |two: &&[(usize, String)]| two[0].1 == name && two[1].1 == "!";
    tokens(code).windows(2).filter(calls).map(|two| two[0].0).collect()
}
