//! Which root a path means: a whole name, or its last parts.

/// Whether `given` names the root `name`, such as `GPT2LMHeadModel.forward#2`.
///
/// The parts of a name stand between dots. The last part is the method, which may be left out: `Decoder.forward` and `Decoder`
/// both name `translator.Decoder.forward`. A second living model of the same class has a number after `#`, which is never left
/// out: `Decoder` means the first model.
pub fn names_root(given: &str, name: &str) -> bool {
    if given == name {
        return true;
    }
    let numbered = |text: &str| match text.rsplit_once('#') {
        Some((parts, number)) => (parts.to_owned(), number.to_owned()),
        None => (text.to_owned(), String::new()),
    };
    let ((given, wanted), (name, number)) = (numbered(given), numbered(name));
    let ends = |name: &str| {
        name.strip_suffix(given.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    let class = name.rsplit_once('.').map(|(class, _)| class);
    wanted == number && !given.is_empty() && (ends(&name) || class.is_some_and(ends))
}

#[cfg(test)]
mod tests {
    use super::names_root;

    #[test]
    fn the_last_parts_name_a_root() {
        for (given, name, means) in [
            ("Decoder.forward", "Decoder.forward", true),
            ("Decoder", "Decoder.forward", true),
            ("Decoder", "net.Decoder.forward", true),
            ("net.Decoder", "net.Decoder.forward", true),
            ("forward", "net.Decoder.forward", true),
            ("coder", "Decoder.forward", false),
            ("Decoder.encode", "Decoder.forward", false),
            ("net", "net.Decoder.forward", false),
            ("Decoder", "Decoder.forward#2", false),
            ("Decoder#2", "Decoder.forward#2", true),
            ("Decoder.forward#2", "Decoder.forward#2", true),
            ("Decoder.forward#2", "Decoder.forward", false),
            ("operations", "operations", true),
            ("", "Decoder.forward", false),
            ("#2", "Decoder.forward#2", false),
        ] {
            assert_eq!(names_root(given, name), means, "{given} {name}");
        }
    }
}
