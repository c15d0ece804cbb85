//! The table of `run --summary`.

use comfy_table::{ContentArrangement, Table, presets};
use graphpatch_core::patch::PatchSpec;
use graphpatch_protocol::PatchReport;

use crate::launch::failure::last_error;
use crate::terminal;

/// The patch as text, with the runs that it is for.
pub fn title(spec: &PatchSpec) -> String {
    if spec.runs.is_all() {
        spec.to_string()
    } else {
        format!("{spec} (runs {})", spec.runs)
    }
}

/// One line for each patch; a column for kept values where something is kept, and one for errors where there are some. Empty
/// without patches.
pub fn table(specs: &[PatchSpec], patches: &[PatchReport]) -> String {
    if patches.is_empty() {
        return String::new();
    }
    let keeps = specs.iter().any(|spec| spec.kind.keeps());
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    // The table goes to stderr. Only on a terminal is its width limited.
    if let Some(width) = terminal::width_of_stderr() {
        table.set_content_arrangement(ContentArrangement::Dynamic);
        table.set_width(width);
    }
    let fails = patches.iter().any(|patch| patch.last_error.is_some());
    let mut header = vec!["patch", "matched", "applied", "failed"];
    header.extend(keeps.then_some("kept"));
    header.extend(fails.then_some("last error"));
    table.set_header(header);
    for (spec, patch) in specs.iter().zip(patches) {
        let mut row = vec![patch.text.clone()];
        row.extend([patch.matched, patch.applied, patch.failed].map(|count| count.to_string()));
        if keeps {
            row.push(kept(spec, patch));
        }
        if fails {
            let error = patch.last_error.as_deref();
            row.push(error.map_or(String::new(), |error| last_error(spec, error)));
        }
        table.add_row(row);
    }
    format!("{table}\n")
}

fn kept(spec: &PatchSpec, patch: &PatchReport) -> String {
    match (spec.kind.keeps(), patch.dropped) {
        (false, _) => String::new(),
        (true, 0) => patch.kept.to_string(),
        (true, dropped) => format!("{}, {dropped} over the limit", patch.kept),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_values_are_counted() {
        let mut probe: PatchSpec = "a=probe".parse().expect("patch");
        probe.runs = "2..".parse().expect("runs");
        let specs = ["a=zero".parse().expect("patch"), probe];
        let mut reports = specs.each_ref().map(|spec| PatchReport {
            text: title(spec),
            matched: 3,
            ..PatchReport::default()
        });
        (reports[1].kept, reports[1].dropped) = (1, 2);
        let all = table(&specs, &reports);
        for part in ["kept", "a=probe (runs 2..)", "1, 2 over the limit"] {
            assert!(all.contains(part), "{all}");
        }
        let zero = table(&specs[..1], &reports[..1]);
        assert!(zero.contains("a=zero") && !zero.contains("kept"), "{zero}");
        assert!(!zero.contains("last error"), "{zero}");
        reports[0].last_error =
            Some("graphpatch: patch \"a=zero\" cannot be applied at a: too few".into());
        let failed = table(&specs[..1], &reports[..1]);
        assert!(failed.contains("┆ too few"), "{failed}");
        assert!(table(&[], &[]).is_empty());
    }
}
