//! The heat map of layers and heads, 72 characters wide.

use std::fmt::Write;

use crate::commands::sweep::heat::painted;

/// A row for each layer. The number in a cell is the change of the similarity in thousandths.
pub fn text(heads: &[Vec<f64>], bare: f64, colors: bool) -> String {
    let changes = heads.iter().flatten().map(|value| (value - bare).abs());
    let most = changes.filter(|far| far.is_finite()).fold(0.0, f64::max);
    let mut text = format!("{:9}", "head");
    for head in 0..heads.first().map_or(0, Vec::len) {
        let _ = write!(text, " {head:>4}");
    }
    text.push('\n');
    for (layer, values) in heads.iter().enumerate() {
        let _ = write!(text, "  layer {layer}");
        for value in values {
            let change = value - bare;
            let position = (most > 0.0 && !change.is_nan()).then(|| change / most);
            let number = format!("{:+.0}", 1000.0 * change);
            let _ = write!(text, " {}", painted(&number, position, 4, colors));
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
    text + "How to read it: a cell is a head; its number is the change in thousandths, its shade how large that is.\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_say_what_a_head_changes() {
        let plain = text(&[vec![0.5, 0.48], vec![0.51, f64::NAN]], 0.5, false);
        let lines: Vec<&str> = plain.lines().collect();
        assert_eq!(lines[0], "head         0    1");
        assert_eq!(lines[1], "  layer 0   +0 █-20");
        assert_eq!(lines[2], "  layer 1 ▒+10  NaN");
        let colored = text(&[vec![0.5, 0.48]], 0.5, true);
        assert!(
            colored.contains("48;5;32") || colored.contains("48;5;25"),
            "{colored:?}"
        );
    }
}
