//! Bar plots as SVG, written by hand: a bar a queue, on a logarithmic scale because the figures span four orders of magnitude.

use std::fmt::Write;

/// What a bar stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The bare machine.
    Floor,
    /// millpond.
    Subject,
    /// Another queue.
    Peer,
}

/// One bar.
pub(crate) struct Bar {
    /// The text before it.
    pub(crate) name: String,
    /// Its length.
    pub(crate) figure: f64,
    /// The text after it.
    pub(crate) label: String,
    /// Its colour.
    pub(crate) kind: Kind,
}

const ROW: usize = 22;
const NAMES_WIDTH: f64 = 190.0;
const BARS_WIDTH: f64 = 400.0;
const WIDTH: usize = 800;

/// A plot with these bars, in their order.
pub(crate) fn bars(title: &str, bars: &[Bar]) -> String {
    let height = 40 + bars.len() * ROW;
    let mut svg = String::new();
    // Writing to a String does not fail.
    let _ = writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"10\" y=\"20\" font-weight=\"bold\">{}</text>",
        escape(title)
    );
    let positive = || bars.iter().map(|bar| bar.figure).filter(|figure| *figure > 0.0);
    // The scale begins a little below the smallest figure, so that its bar is seen.
    let (low, high) = (positive().fold(f64::INFINITY, f64::min) / 2.0, positive().fold(0.0, f64::max));
    for (index, bar) in bars.iter().enumerate() {
        let top = 32 + index * ROW;
        let part = if bar.figure > 0.0 { (bar.figure / low).ln() / (high / low).ln() } else { 0.0 };
        let colour = match bar.kind {
            Kind::Floor => "#b8b8b8",
            Kind::Subject => "#c8591a",
            Kind::Peer => "#4a7aa8",
        };
        let width = part * BARS_WIDTH;
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{NAMES_WIDTH}\" y=\"{top}\" width=\"{width:.1}\" height=\"16\" fill=\"{colour}\"/>\
             <text x=\"{:.1}\" y=\"{}\">{}</text>",
            NAMES_WIDTH - 8.0,
            top + 13,
            escape(&bar.name),
            NAMES_WIDTH + width + 6.0,
            top + 13,
            escape(&bar.label)
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_grow_with_the_logarithm() {
        let bar = |figure| Bar { name: "<q>".to_owned(), figure, label: String::new(), kind: Kind::Peer };
        let svg = bars("t", &[bar(2.0), bar(200.0), bar(20.0)]);
        let widths: Vec<f64> = svg
            .lines()
            .filter_map(|line| line.split("width=\"").nth(1)?.split('"').next()?.parse().ok())
            .filter(|width| *width != WIDTH as f64)
            .collect();
        assert_eq!(widths.len(), 3);
        assert!((widths[1] - BARS_WIDTH).abs() < 0.1);
        assert!(
            (widths[1] - widths[2] - (widths[2] - widths[0])).abs() < 0.2,
            "equal factors, equal steps: {widths:?}"
        );
        assert!(svg.contains("&lt;q&gt;") && !svg.contains("<q>"));
    }
}
