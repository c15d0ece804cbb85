//! C++ as text, as far as generated code needs it: without comments and strings, statement by statement.

/// The text with comments as blanks. Strings stay.
pub(crate) fn without_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['/', '"']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let end = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else {
            let raw = rest.starts_with('"') && out.ends_with('R');
            let end = match (rest.starts_with('"'), raw) {
                (true, true) => raw_string(rest),
                (true, false) => string(rest),
                (false, _) => 1,
            };
            out.push_str(&rest[..end]);
            end
        };
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}

/// The end of the string that the text begins with.
fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The same for `R"mark( ... )mark"`, from its quotation mark on.
fn raw_string(text: &str) -> usize {
    let Some(open) = text.find('(') else {
        return text.len();
    };
    let close = format!("){}\"", &text[1..open]);
    text.find(&close).map_or(text.len(), |at| at + close.len())
}

/// The content of the braces that open first behind `at`.
pub(crate) fn block(text: &str, at: usize) -> Option<&str> {
    let open = at + text.get(at..)?.find('{')?;
    let end = open + closing(text.get(open..)?)?;
    text.get(open + 1..end)
}

/// Where the bracket closes that the text begins with.
pub(crate) fn closing(text: &str) -> Option<usize> {
    let mut depth = 0usize;
    for (at, c) in text.char_indices() {
        match c {
            '(' | '{' | '[' => depth += 1,
            ')' | '}' | ']' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

/// A piece of code between `;`, `{` and `}`, and whether it stands below a condition or in a loop.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Statement<'a> {
    pub(crate) text: &'a str,
    pub(crate) conditional: bool,
}

pub(crate) fn statements(body: &str) -> Vec<Statement<'_>> {
    let mut out = Vec::new();
    let (mut begin, mut depth) = (0, 0usize);
    // Whether each open block is conditional; initializers are no blocks.
    let mut blocks: Vec<bool> = Vec::new();
    let mut initializers = 0usize;
    for (at, c) in body.char_indices() {
        let head = body.get(begin..at).unwrap_or_default().trim();
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            '{' if depth > 0 || initializers > 0 || is_initialized(head) => initializers += 1,
            '}' if initializers > 0 => initializers -= 1,
            '{' | '}' | ';' if depth == 0 && initializers == 0 => {
                let around = blocks.last().copied().unwrap_or(false);
                let conditional = around || is_conditional(head);
                if !head.is_empty() {
                    out.push(Statement {
                        text: head,
                        conditional,
                    });
                }
                match c {
                    '{' => blocks.push(conditional),
                    '}' => drop(blocks.pop()),
                    _ => {}
                }
                begin = at + 1;
            }
            _ => {}
        }
    }
    out
}

/// Whether a brace behind this text belongs to a value: `int64_t sizes[] = {`, `std::vector<int>{`.
fn is_initialized(head: &str) -> bool {
    !head.is_empty()
        && !head.ends_with(')')
        && !matches!(head, "else" | "do" | "try")
        && !head.starts_with("namespace")
}

fn is_conditional(head: &str) -> bool {
    let word = head.split(|c: char| !c.is_alphanumeric()).next();
    matches!(
        word,
        Some("if" | "else" | "for" | "while" | "do" | "switch")
    )
}

pub(crate) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The identifiers of a text, with where each begins.
pub(crate) fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    text.split(|c: char| !is_word(c)).filter_map(move |word| {
        let begin = at;
        at += word.len()
            + text
                .get(at + word.len()..)?
                .chars()
                .next()
                .map_or(0, char::len_utf8);
        let first = word.chars().next()?;
        (!first.is_numeric()).then_some((begin, word))
    })
}

/// The arguments in the brackets that the text begins with.
pub(crate) fn arguments(text: &str) -> Option<Vec<&str>> {
    let inner = text.get(1..closing(text)?)?;
    let (mut out, mut begin, mut depth) = (Vec::new(), 0, 0usize);
    for (at, c) in inner.char_indices() {
        match c {
            '(' | '[' | '{' | '<' => depth += 1,
            '>' if inner.get(..at).is_some_and(|before| before.ends_with('-')) => {}
            ')' | ']' | '}' | '>' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                out.push(inner.get(begin..at)?.trim());
                begin = at + 1;
            }
            _ => {}
        }
    }
    let last = inner.get(begin..)?.trim();
    if !last.is_empty() {
        out.push(last);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_go_and_strings_stay() {
        let text = "a(); // b();\nc(\"// no\"); /* d */ e = R\"x(// \" )x\"; f / g";
        let wanted = "a(); \nc(\"// no\");  e = R\"x(// \" )x\"; f / g";
        assert_eq!(without_comments(text), wanted);
    }

    #[test]
    fn statements_know_their_conditions() {
        let body = "int a[] = {1L, 2L}; { b(a, {1}); } if (c) { d(); } for (;;) e(); f()";
        let found: Vec<_> = statements(body)
            .into_iter()
            .map(|s| (s.text, s.conditional))
            .collect();
        assert_eq!(found[0], ("int a[] = {1L, 2L}", false));
        assert_eq!(found[1], ("b(a, {1})", false));
        assert!(found.contains(&("d()", true)));
        assert!(found.contains(&("for (;;) e()", true)));
    }

    #[test]
    fn arguments_are_split_outside_of_brackets() {
        let text = "(a, f(b->x, c), std::array<int, 2>{d, e}.data(), 1L) + g";
        let wanted = ["a", "f(b->x, c)", "std::array<int, 2>{d, e}.data()", "1L"];
        assert_eq!(arguments(text).unwrap(), wanted);
        assert_eq!(arguments("()").unwrap(), Vec::<&str>::new());
    }

    #[test]
    fn words_are_identifiers() {
        let found: Vec<_> = words("f(a_1, 2L) + g").map(|(_, word)| word).collect();
        assert_eq!(found, ["f", "a_1", "g"]);
        let (at, word) = words("x = foo(1)").nth(1).unwrap();
        assert_eq!((at, word), (4, "foo"));
    }
}
