//! Plain SVG: one row for each contender, with a mark at the median and a line from the minimum to the maximum.

use std::fmt::Write as _;

/// One contender's values.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) label: String,
    pub(super) low: f64,
    pub(super) middle: f64,
    pub(super) high: f64,
}

/// How values are spread over the width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    Linear,
    /// Powers of ten; what is below `least` is drawn at it.
    Logarithmic,
}

/// Draws all rows below a title.
pub(super) fn rows(title: &str, scale: Scale, least: f64, rows: &[Row]) -> String {
    let most = rows.iter().map(|row| row.high).fold(least, f64::max);
    let axis = Axis::new(scale, least, most);
    let height = TOP + ROW * rows.len() as f64 + BOTTOM;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"12\" y=\"24\" font-size=\"15\" font-weight=\"bold\">{}</text>\n",
        escaped(title)
    );
    for tick in axis.ticks() {
        let (x, bottom) = (axis.place(tick), height - BOTTOM);
        line(&mut svg, [x, TOP - 8.0, x, bottom], "#ddd", 1.0);
        text(&mut svg, [x, bottom + 18.0], "middle", &shown(tick));
    }
    for (number, row) in rows.iter().enumerate() {
        let y = TOP + ROW * (number as f64 + 0.5);
        let [low, middle, high] = [row.low, row.middle, row.high].map(|value| axis.place(value));
        text(&mut svg, [LEFT - 12.0, y + 4.0], "end", &row.label);
        line(&mut svg, [low, y, high, y], "#7a9cc6", 4.0);
        // Writing to a string cannot fail.
        let _: std::fmt::Result = writeln!(
            svg,
            "<circle cx=\"{middle:.1}\" cy=\"{y:.1}\" r=\"5\" fill=\"#1f4e8c\"><title>{}: {} ({} to {})</title></circle>",
            escaped(&row.label),
            shown(row.middle),
            shown(row.low),
            shown(row.high)
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// From values to places.
#[derive(Clone, Copy, Debug)]
struct Axis {
    scale: Scale,
    least: f64,
    most: f64,
}

impl Axis {
    fn new(scale: Scale, least: f64, most: f64) -> Self {
        let most = match scale {
            Scale::Linear => (most * 1.05).max(least + 1e-9),
            Scale::Logarithmic => 10_f64.powf(most.log10().ceil()).max(least * 10.0),
        };
        Self { scale, least, most }
    }

    fn place(self, value: f64) -> f64 {
        let value = value.clamp(self.least, self.most);
        let share = match self.scale {
            Scale::Linear => (value - self.least) / (self.most - self.least),
            Scale::Logarithmic => (value / self.least).log10() / (self.most / self.least).log10(),
        };
        LEFT + share * (WIDTH - LEFT - RIGHT)
    }

    fn ticks(self) -> Vec<f64> {
        match self.scale {
            Scale::Linear => {
                let step = (self.most - self.least) / 5.0;
                (0..=5_u8).map(|number| self.least + step * f64::from(number)).collect()
            }
            Scale::Logarithmic => {
                let tick = |power: i32| self.least * 10_f64.powi(power);
                (0..12).map(tick).take_while(|tick| *tick <= self.most * 1.001).collect()
            }
        }
    }
}

fn line(svg: &mut String, [x1, y1, x2, y2]: [f64; 4], colour: &str, width: f64) {
    // Writing to a string cannot fail.
    let _: std::fmt::Result = writeln!(
        svg,
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{colour}\" stroke-width=\"{width}\"/>"
    );
}

fn text(svg: &mut String, [x, y]: [f64; 2], anchor: &str, text: &str) {
    // Writing to a string cannot fail.
    let _: std::fmt::Result = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>",
        escaped(text)
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Three digits that matter.
fn shown(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

const WIDTH: f64 = 860.0;
const LEFT: f64 = 290.0;
const RIGHT: f64 = 30.0;
const TOP: f64 = 48.0;
const ROW: f64 = 24.0;
const BOTTOM: f64 = 32.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_follow_the_scale() {
        let axis = Axis::new(Scale::Logarithmic, 1.0, 900.0);
        assert_eq!(axis.most, 1_000.0);
        assert_eq!(axis.ticks(), [1.0, 10.0, 100.0, 1_000.0]);
        assert_eq!(axis.place(0.0), LEFT);
        assert_eq!(axis.place(1_000.0), WIDTH - RIGHT);
        let axis = Axis::new(Scale::Linear, 0.0, 100.0);
        assert!(axis.place(100.0) < WIDTH - RIGHT);
    }

    #[test]
    fn labels_cannot_break_the_picture() {
        let row = Row { label: "a < b & c".to_owned(), low: 0.0, middle: 1.0, high: 2.0 };
        let svg = rows("t", Scale::Linear, 0.0, &[row]);
        assert!(svg.contains("a &lt; b &amp; c"), "{svg}");
    }
}
