//! Text that comes from elsewhere (a model's names, a file, another program's message), made safe for a terminal.

use std::borrow::Cow;

/// The text with everything escaped that a terminal would obey instead of show: control characters, and characters that turn
/// the direction of writing, become `\u001b` and the like, as in JSON. Line ends and tabs stay.
pub fn plain(text: &str) -> Cow<'_, str> {
    escaped(text, |c| is_obeyed(c) && !matches!(c, '\n' | '\t'))
}

/// The same for what stands in a line: no line ends and no tabs stay either.
pub fn plain_line(text: &str) -> Cow<'_, str> {
    escaped(text, is_obeyed)
}

/// Whether a terminal obeys the character instead of showing it.
pub fn is_obeyed(c: char) -> bool {
    // The embeddings, overrides and isolates of bidirectional text.
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escaped(text: &str, is_wrong: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.chars().any(&is_wrong) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            _ if !is_wrong(c) => out.push(c),
            '\n' => out += "\\n",
            '\r' => out += "\\r",
            '\t' => out += "\\t",
            _ => out += &format!("\\u{:04x}", u32::from(c)),
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_obeyed_changes() {
        for text in ["", "a.b", "├─x: Tensor(3, 2)\n\tλ → 模型 🙂", "\u{a0}é"] {
            assert!(matches!(plain(text), Cow::Borrowed(same) if same == text));
        }
        assert_eq!(plain("\u{1b}[31m\r\u{7f}\n"), "\\u001b[31m\\r\\u007f\n");
        assert_eq!(
            plain("\u{9b}2J\u{202e}x\u{2066}"),
            "\\u009b2J\\u202ex\\u2066"
        );
        assert_eq!(plain_line("a\n\tb"), "a\\n\\tb");
    }

    /// Printed text may be JSON, in which such characters occur only inside of strings.
    #[test]
    fn json_stays_what_it_was() {
        let name = "\u{7f}\u{9b}31m\u{202e}\"";
        let text = serde_json::to_string(&[name]).expect("json");
        assert_ne!(plain(&text), text);
        let back: Vec<String> = serde_json::from_str(&plain(&text)).expect("json");
        assert_eq!(back, [name]);
    }
}
