//! The page: a template with its style, its script and its data put in, so that it needs nothing else.

use super::data::Data;
use crate::voice::Stop;

const TEMPLATE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/style.css");
/// The parts of the page's script, in this order. Together they are the body of one function.
const SCRIPT: [&str; 14] = [
    include_str!("page/model.js"),
    include_str!("page/elements.js"),
    include_str!("page/tree.js"),
    include_str!("page/search.js"),
    include_str!("page/layout.js"),
    include_str!("page/drawing.js"),
    include_str!("page/source.js"),
    include_str!("page/details.js"),
    include_str!("page/patching.js"),
    include_str!("page/sweep.js"),
    include_str!("page/tint.js"),
    include_str!("page/compare.js"),
    include_str!("page/help.js"),
    include_str!("page/main.js"),
];

pub fn html(title: &str, data: &Data) -> Result<String, Stop> {
    let data = serde_json::to_string(data)
        .map_err(|why| Stop::usage(format!("the graph cannot be written as JSON: {why}")))?;
    let script = format!(
        "\"use strict\";\n(() => {{\n{}\n}})();\n",
        SCRIPT.join("\n")
    );
    Ok(fill(
        TEMPLATE,
        &[
            ("title", &escape(title)),
            ("style", STYLE),
            // No `</script>` or `<!--` in any text of a graph can end the element that holds the data.
            ("data", &data.replace('<', "\\u003c")),
            ("script", &script),
        ],
    ))
}

/// Replaces each `{{name}}` by its part. Text that was put in is not searched for further names.
fn fill(template: &str, parts: &[(&str, &str)]) -> String {
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        text += before;
        let (name, after) = after.split_once("}}").unwrap_or((after, ""));
        let part = parts.iter().find(|(known, _)| *known == name);
        text += part.map_or("", |(_, part)| part);
        rest = after;
    }
    text + rest
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::view::samples;
    use graphpatch_core::path::NodePath;

    #[test]
    fn nothing_in_a_graph_ends_an_element() {
        let mut graph = samples::graph();
        let evil = "</script><script>{{style}}<!--";
        graph.root.children[0].name = evil.into();
        graph.name = evil.into();
        let (data, _) = Data::new(evil.into(), &NodePath::root(), &[graph], &[]);
        let Ok(page) = html(evil, &data) else {
            panic!("refused")
        };
        let ends = TEMPLATE.matches("</script>").count();
        assert_eq!(page.matches("</script>").count(), ends);
        assert!(
            page.contains("&lt;/script&gt;")
                && page.contains("\\u003c/script>\\u003cscript>{{style}}")
        );
        let json = page
            .split_once("type=\"application/json\">")
            .expect("data")
            .1;
        let json = json.split_once("</script>").expect("end").0;
        let read: serde_json::Value = serde_json::from_str(json).expect("JSON");
        assert_eq!(read["graphs"][0]["name"], evil);
    }

    #[test]
    fn every_place_is_filled() {
        assert_eq!(
            fill("a{{x}}b{{y}}c", &[("y", "{{x}}"), ("x", "1")]),
            "a1b{{x}}c"
        );
        for name in ["title", "style", "data", "script"] {
            assert_eq!(
                TEMPLATE.matches(&format!("{{{{{name}}}}}")).count(),
                1,
                "{name}"
            );
        }
    }
}
