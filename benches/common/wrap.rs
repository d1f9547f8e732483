//! The width of a page of figures.

/// The text with its prose in lines of at most 100 columns. Tables and headings keep their lines.
pub(crate) fn wrapped(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let indent = if line.starts_with("- ") { "  " } else { "" };
        let mut column = 0;
        for (index, word) in line.split(' ').enumerate() {
            let width = word.chars().count();
            if index > 0 && (line.starts_with(['|', '#']) || column + 1 + width <= 100) {
                out.push(' ');
                column += 1;
            } else if index > 0 {
                out.push('\n');
                out.push_str(indent);
                column = indent.len();
            }
            out.push_str(word);
            column += width;
        }
        out.push('\n');
    }
    out
}
