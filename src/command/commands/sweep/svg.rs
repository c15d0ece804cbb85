//! A sweep's heat maps as a picture.

use svg::Document;
use svg::node::element::{Group, Rectangle, Text, Title};

use super::heat::{Grid, Scale, hex, is_light, rgb, short};
use super::table::{Measure, Table};

const CELL: (usize, usize) = (58, 26);
const LETTER: usize = 8;
const GAP: usize = 12;
/// The color of a failed run's cell.
const GREY: &str = "#bbb";

/// The maps of all metrics, one below the other.
pub fn picture(table: &Table) -> String {
    let grid = Grid::of(table.rows.iter().map(|row| (&row.node, row)));
    let labels = grid.rows.iter().map(|(label, _)| label.chars().count());
    let margin = labels.max().unwrap_or(0) * LETTER + 2 * GAP;
    let map_height = (grid.rows.len() + 3) * CELL.1 + 2 * GAP;
    let titles = table
        .metrics
        .iter()
        .map(|metric| metric.name.chars().count() + 30);
    let width =
        (margin + grid.columns.len() * CELL.0).max(titles.max().unwrap_or(0) * LETTER) + GAP;
    let height = map_height * table.metrics.len();
    let mut document = Document::new()
        .set("viewBox", (0, 0, width, height))
        .set("width", width)
        .set("height", height)
        .set("font-family", "monospace")
        .set("font-size", 12)
        .add(rectangle(0, 0, width, height, "white"));
    for metric in 0..table.metrics.len() {
        let map = map(table, &grid, metric, margin);
        let place = format!("translate(0 {})", metric * map_height);
        document = document.add(map.set("transform", place));
    }
    let mut text = document.to_string();
    text.push('\n');
    text
}

fn map(table: &Table, grid: &Grid, metric: usize, margin: usize) -> Group {
    let column = &table.metrics[metric];
    let value = |row: usize| table.rows[row].values.get(metric).map(|value| value.0);
    let scale = Scale::of(column, (0..table.rows.len()).filter_map(value));
    let title = format!("{}, {} in the bare run", column.name, short(column.bare.0));
    let mut group = Group::new().add(words(title, GAP, CELL.1).set("font-weight", "bold"));
    let x = |column: usize| margin + column * CELL.0;
    let y = |row: usize| (row + 2) * CELL.1;
    for (i, head) in grid.columns.iter().enumerate() {
        let head = words(head.as_str(), x(i) + CELL.0 / 2, y(0) - 6);
        group = group.add(head.set("text-anchor", "middle"));
    }
    for (i, (label, cells)) in grid.rows.iter().enumerate() {
        let label = words(label.as_str(), margin - GAP, y(i) + 17);
        group = group.add(label.set("text-anchor", "end"));
        for (j, row) in cells.iter().enumerate() {
            let Some(row) = *row else { continue };
            let node = table.rows[row].label();
            let color = value(row).and_then(|value| scale.position(value)).map(rgb);
            let fill = color.map_or(GREY.to_owned(), hex);
            let (text, more) = match value(row) {
                Some(value) => (short(value), format!("{node}: {value}")),
                None => {
                    let why = table.rows[row].why.as_deref().unwrap_or_default();
                    ("failed".to_owned(), format!("{node}: {why}"))
                }
            };
            let ink = if color.is_none_or(is_light) {
                "black"
            } else {
                "white"
            };
            let number = words(text, x(j) + CELL.0 / 2, y(i) + 17)
                .set("text-anchor", "middle")
                .set("fill", ink);
            let cell = rectangle(x(j), y(i), CELL.0 - 1, CELL.1 - 1, &fill);
            group = group.add(Group::new().add(Title::new(more)).add(cell).add(number));
        }
    }
    legend(group, &scale, margin, y(grid.rows.len()) + 8)
}

/// The colors with the numbers at their ends.
fn legend(mut group: Group, scale: &Scale, x: usize, y: usize) -> Group {
    const STEPS: usize = 24;
    let (least, most) = scale.ends();
    for step in 0..STEPS {
        let share = step as f64 / (STEPS - 1) as f64;
        let place = match scale.measure {
            Measure::Regex => 2.0 * share - 1.0,
            Measure::Distance => share,
        };
        group = group.add(rectangle(x + step * 5, y, 5, 10, &hex(rgb(place))));
    }
    let ends = words(
        format!("{} … {}", short(least), short(most)),
        x + STEPS * 5 + 6,
        y + 10,
    );
    group.add(ends.set("font-size", 10))
}

fn words(text: impl Into<String>, x: usize, y: usize) -> Text {
    Text::new(text).set("x", x).set("y", y)
}

fn rectangle(x: usize, y: usize, width: usize, height: usize, fill: &str) -> Rectangle {
    Rectangle::new()
        .set("x", x)
        .set("y", y)
        .set("width", width)
        .set("height", height)
        .set("fill", fill)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::sweep::table::tests::sample;

    #[test]
    fn every_node_has_its_cell() {
        let mut table = sample();
        table.rows[2].why = Some("a <b> & c".into());
        let text = picture(&table);
        // One cell and one title for each node and metric.
        assert_eq!(text.matches("<title>").count(), 8);
        for part in [
            "a_1.output: 3",
            "failed",
            "a &lt;b&gt; &amp; c",
            "#b2182b",
            "loss, 1.00 in the bare run",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(text.matches("fill=\"#bbb\"").count(), 3);
    }
}
