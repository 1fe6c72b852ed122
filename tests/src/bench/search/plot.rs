//! The plot of `docs/search.md`: messages and time by the number of nodes, both axes logarithmic.

use super::{Row, Way};

/// Size of one panel's plane, and where it begins.
const PLANE: (f64, f64) = (300.0, 220.0);
const LEFT: [f64; 2] = [70.0, 470.0];
const TOP: f64 = 50.0;

/// One panel: its title, and the value of a row.
type Panel = (&'static str, fn(&Row) -> Option<f64>);

/// The plot as SVG that refers to no other file. A line connects simulated networks. Real ones are
/// squares.
pub(super) fn svg(rows: &[Row]) -> String {
    let rows: Vec<&Row> = rows.iter().collect();
    let panels: [Panel; 2] = [
        ("messages of all nodes for one search", |row| Some(row.messages)),
        ("until a holder is known, ms (median)", |row| row.ms),
    ];
    let mut text = "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 840 330\" \
                    font-family=\"sans-serif\" font-size=\"12\">\n\
                    <title>What a search costs: flood query and index</title>\n\
                    <rect width=\"840\" height=\"330\" fill=\"#fff\"/>\n"
        .to_owned();
    for (panel, left) in panels.iter().zip(LEFT) {
        text += &draw(&rows, panel, left);
    }
    text + "</svg>\n"
}

fn draw(rows: &[&Row], (title, value): &Panel, left: f64) -> String {
    let nodes = |row: &&&Row| (row.nodes as f64).log10();
    // Less than one is drawn as one: what a node knows itself takes no time.
    let height = |row: &Row| value(row).map(|value| value.max(1.0).log10());
    let values: Vec<f64> = rows.iter().filter_map(|row| height(row)).collect();
    let ends = |values: &[f64]| {
        let low = values.iter().copied().fold(f64::INFINITY, f64::min).floor();
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max).ceil();
        (low, high.max(low + 1.0))
    };
    if values.is_empty() {
        return String::new();
    }
    let across = ends(&rows.iter().map(|row| nodes(&row)).collect::<Vec<_>>());
    let up = ends(&values);
    let x = |log: f64| left + (log - across.0) / (across.1 - across.0) * PLANE.0;
    let y = |log: f64| TOP + PLANE.1 - (log - up.0) / (up.1 - up.0) * PLANE.1;
    let bottom = TOP + PLANE.1;
    let mut text =
        format!("<text x=\"{left}\" y=\"{}\" font-weight=\"bold\">{title}</text>\n", TOP - 20.0);
    for log in (up.0 as i32)..=(up.1 as i32) {
        let at = y(f64::from(log));
        text += &format!(
            "<path d=\"M{left} {at:.1}h{}\" stroke=\"#ddd\"/>\n<text x=\"{}\" y=\"{:.1}\" \
             text-anchor=\"end\">{}</text>\n",
            PLANE.0,
            left - 6.0,
            at + 4.0,
            10_u64.pow(log.unsigned_abs())
        );
    }
    for log in (across.0 as i32)..=(across.1 as i32) {
        text += &format!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n",
            x(f64::from(log)),
            bottom + 18.0,
            10_u64.pow(log.unsigned_abs())
        );
    }
    text += &format!(
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">nodes (lines: simulated, squares: \
         real)</text>\n",
        left + PLANE.0 / 2.0,
        bottom + 38.0
    );
    for (way, color) in [(Way::Flood, "#c0392b"), (Way::Index, "#1f618d")] {
        let points = |real| {
            let such = rows.iter().filter(move |row| row.way == way && row.real == real);
            such.filter_map(|row| Some((x(nodes(&row)), y(height(row)?))))
        };
        for (x, y) in points(true) {
            text += &format!(
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"10\" height=\"10\" fill=\"none\" \
                 stroke=\"{color}\" stroke-width=\"2\"/>\n",
                x - 5.0,
                y - 5.0
            );
        }
        let points: Vec<(f64, f64)> = points(false).collect();
        let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
        text += &format!(
            "<path d=\"M{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"/>\n",
            path.join("L")
        );
        for (x, y) in &points {
            text += &format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{color}\"/>\n");
        }
        if let Some((x, y)) = points.last() {
            text += &format!(
                "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{color}\">{}</text>\n",
                x + 6.0,
                y + 4.0,
                way.name()
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::Cost;
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_plot_has_both_lines_and_a_square_for_each_real_network() {
        let row = |nodes, way, real, messages| {
            let first = Some(Duration::from_millis(30));
            Row::of(nodes, way, real, &[Cost { messages, first, ..Cost::default() }])
        };
        let rows = [
            row(1_000, Way::Flood, false, 6_000),
            row(10_000, Way::Flood, false, 60_000),
            row(1_000, Way::Index, false, 50),
            row(10_000, Way::Index, false, 60),
        ];
        let drawn = svg(&rows);
        assert!(drawn.contains(">flood<") && drawn.contains(">index<"));
        assert!(drawn.contains("100000<"), "the axis reaches above 60,000: {drawn}");
        let squares = |drawn: &str| drawn.matches("width=\"10\"").count();
        assert_eq!(squares(&drawn), 0);
        let more = svg(&[&rows[..], &[row(2_000, Way::Flood, true, 7_000)]].concat());
        // One in each panel, and no line leads to it.
        assert_eq!(squares(&more), 2);
        let lines = |drawn: &str| drawn.lines().filter(|line| line.contains('L')).count();
        assert_eq!(lines(&more), lines(&drawn));
        let first = Some(Duration::ZERO);
        let known = Row::of(10, Way::Index, false, &[Cost { first, ..Cost::default() }]);
        assert!(svg(&[known]).contains(">1<"));
    }
}
