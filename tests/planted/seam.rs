//! Seams: where a mistake is planted.
//!
//! A line `// seam: NAME` marks the statement, arm, field or link of a chain of calls that begins on the next line. A mistake says
//! what becomes of that, and never what it is, so that the marked code may be rewritten as long as it does the same thing.

/// What a planted bug does at its seam. `planted!()` says whether the bug is awake; `$it` stands for what is there.
#[derive(Clone, Copy, Debug)]
pub enum Mistake {
    /// It is left out.
    Skip,
    /// This comes before it.
    Before(&'static str),
    /// This takes its place.
    Instead(&'static str),
    /// This takes the place of what it asks: the condition of an `if` or of an arm, what a `match`, `if let` or `let … else` looks at,
    /// what a `for` goes through.
    Asks(&'static str),
    /// This takes the place of the value it gives: behind ` = `, ` => ` or ` : `, or all of it.
    Value(&'static str),
}

const MARK: &str = "// seam: ";

/// The names of the seams of a file, in order.
pub fn names(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| line.trim_start().strip_prefix(MARK))
}

/// The text with a mistake at the seam of this name.
pub fn plant(text: &str, name: &str, mistake: Mistake) -> Result<String, String> {
    let marker = format!("{MARK}{name}\n");
    let marks: Vec<usize> = text.match_indices(&marker).map(|(at, _)| at).collect();
    let [mark] = marks[..] else { return Err(format!("{} seams are called {name:?}", marks.len())) };
    let mut start = mark + marker.len();
    loop {
        start += text[start..].len() - text[start..].trim_start().len();
        if !text[start..].starts_with("//") {
            break;
        }
        start += text[start..].find('\n').ok_or("nothing follows the seam")?;
    }
    let end = start + end_of(&text[start..]);
    let (from, to, with) = match mistake {
        Mistake::Skip => (start, end, "if !planted!() { $it }"),
        Mistake::Before(with) => (start, start, with),
        Mistake::Instead(with) => (start, end, with),
        Mistake::Asks(with) => {
            let (from, to) = asked(&text[start..]).ok_or_else(|| format!("{name}: nothing is asked there"))?;
            (start + from, start + to, with)
        }
        Mistake::Value(with) => {
            let (from, to) = value(&text[start..end]);
            (start + from, start + to, with)
        }
    };
    let it = &text[from..to];
    let with = with.replace("planted!()", &format!("crate::planted({name:?})")).replace("$it", it);
    Ok(format!("{}{with} {}", &text[..from], &text[to..]))
}

/// The characters of code with the depth of brackets before each, without those of strings and comments.
fn code(text: &str) -> impl Iterator<Item = (usize, i32, char)> {
    let mut depth = 0;
    let mut rest = text.char_indices().peekable();
    std::iter::from_fn(move || {
        loop {
            let (at, char) = rest.next()?;
            let after = &text[at..];
            if char == '"' || after.starts_with("r#\"") {
                let len = string_len(after);
                while rest.next_if(|(next, _)| *next < at + len).is_some() {}
                continue;
            }
            if char == '\'' && after.len() > 2 && (after.as_bytes()[1] == b'\\' || after.as_bytes()[2] == b'\'') {
                let len = 2 + after[2..].find('\'').unwrap_or(0);
                while rest.next_if(|(next, _)| *next < at + len).is_some() {}
                continue;
            }
            if after.starts_with("//") {
                let len = after.find('\n').unwrap_or(after.len());
                while rest.next_if(|(next, _)| *next < at + len).is_some() {}
                continue;
            }
            let before = depth;
            match char {
                '(' | '[' | '{' => depth += 1,
                ')' | ']' | '}' => depth -= 1,
                _ => {}
            }
            return Some((at, before, char));
        }
    })
}

fn string_len(text: &str) -> usize {
    if text.starts_with("r#\"") {
        return text.find("\"#").map_or(text.len(), |end| end + 2);
    }
    let mut escaped = false;
    for (at, char) in text.char_indices().skip(1) {
        match char {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Where the construct at the beginning of the text ends.
fn end_of(text: &str) -> usize {
    let is_block = ["if ", "match ", "for ", "while ", "loop "].iter().any(|word| text.starts_with(word));
    let is_link = text.starts_with('.');
    for (at, depth, char) in code(text) {
        match char {
            ';' if depth == 0 => return at + 1,
            ',' if depth == 0 => return at,
            ')' | ']' | '}' if depth == 0 => return at,
            '}' if depth == 1 && is_block && !text[at + 1..].trim_start().starts_with("else") => return at + 1,
            ')' if depth == 1 && is_link => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The first place at depth zero where one of these words stands, and the end of the word.
fn find(text: &str, words: &[&str]) -> Option<(usize, usize)> {
    code(text)
        .filter(|(_, depth, _)| *depth == 0)
        .find_map(|(at, ..)| words.iter().find(|word| text[at..].starts_with(**word)).map(|word| (at, at + word.len())))
}

fn asked(text: &str) -> Option<(usize, usize)> {
    let ((_, from), ends): (_, &[&str]) = if text.starts_with("if let ") {
        (find(text, &[" = "])?, &[" {"])
    } else if text.starts_with("let ") {
        (find(text, &[" = "])?, &[" else {"])
    } else if text.starts_with("for ") {
        (find(text, &[" in "])?, &[" {"])
    } else if text.starts_with("if ") || text.starts_with("match ") {
        (find(text, &["if ", "match "])?, &[" {", "\n"])
    } else {
        (find(text, &[" if "])?, &[" =>"])
    };
    let (to, _) = find(&text[from..], ends)?;
    Some((from, from + to))
}

fn value(text: &str) -> (usize, usize) {
    let end = if text.ends_with(';') { text.len() - 1 } else { text.len() };
    let from = find(text, &[" = ", " => ", ": "]).map_or(0, |(_, from)| from);
    (from, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planted(line: &str, mistake: Mistake) -> String {
        let text = format!("fn f() {{\n    // seam: it\n    {line}\n}}\n");
        let planted = plant(&text, "it", mistake).unwrap();
        let (_, rest) = planted.split_once("// seam: it\n    ").unwrap();
        rest.strip_suffix("\n}\n").unwrap().replace("crate::planted(\"it\")", "awake").trim_end().to_owned()
    }

    #[test]
    fn a_mistake_takes_the_place_of_its_part() {
        assert_eq!(planted("a.b(\";\", ')')?;", Mistake::Skip), "if !awake { a.b(\";\", ')')?; }");
        assert_eq!(planted("x => y(1, 2),", Mistake::Value("z($it)")), "x => z(y(1, 2)) ,");
        assert_eq!(planted("let a = b; // c", Mistake::Value("-$it")), "let a = -b ; // c");
        assert_eq!(planted("if a(1) { b } else { c }", Mistake::Asks("!$it")), "if !a(1)  { b } else { c }");
        assert_eq!(planted("if a { b } else { c }", Mistake::Instead("[$it]")), "[if a { b } else { c }]");
        assert_eq!(planted("for x in y() {\n}", Mistake::Asks("$it.z")), "for x in y().z  {\n}");
        assert_eq!(
            planted("let Some(x) = y else { return };", Mistake::Asks("z")),
            "let Some(x) = z  else { return };"
        );
        assert_eq!(planted("(a, b) if c < d => e,", Mistake::Asks("f")), "(a, b) if f  => e,");
        assert_eq!(planted("x => {\n a\n }", Mistake::Before("q,")), "q, x => {\n a\n }");
        assert!(plant("// seam: a\n// seam: a\n", "a", Mistake::Skip).is_err());
    }
}
