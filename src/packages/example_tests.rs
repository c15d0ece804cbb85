//! What is read from a source that Inductor has generated: the parts of it that are read, for the model `free` of
//! `tests/helpers/aoti.py`.

use super::calls::{self, How, Output};
use super::names::{self, arrange};
use super::{Node, Shows, Unreadable, View};

const SOURCE: &str = include_str!("examples/free.txt");

fn given(json: &str) -> Result<Vec<Node>, Unreadable> {
    let crc = crc32fast::hash(SOURCE.as_bytes());
    let file = json.replace("CRC", &crc.to_string());
    let names = names::parse(file.as_bytes(), SOURCE.as_bytes())?;
    let package = arrange(calls::source(SOURCE)?, Some(names))?;
    Ok(package.nodes)
}

#[test]
fn calls_stand_in_the_order_of_the_run() {
    let source = calls::source(SOURCE).unwrap();
    let symbols: Vec<&str> = source.calls.iter().map(|c| c.symbol.as_str()).collect();
    let wanted = [
        "cpp_fused_native_layer_norm_0",
        "aoti_torch_cpu_addmm_out",
        "aoti_torch_cpu_bmm_out",
        "cpp_fused__softmax_amax_div_mul_sub_1",
        "aoti_torch_cpu_bmm_out",
        "aoti_torch_cpu_addmm_out",
        "cpp_fused_gelu_view_2",
        "aoti_torch_cpu_addmm_out",
        "cpp_fused_add_tanh_view_3",
    ];
    assert_eq!(symbols, wanted);
    assert_eq!(source.inputs, ["arg8_1"]);
    let positions = |call: usize| -> Vec<(How, usize)> {
        let outputs = source.calls[call].outputs.iter();
        outputs
            .map(|&Output { how, position }| (how, position))
            .collect()
    };
    assert_eq!(
        positions(0),
        [(How::Data, 1), (How::Data, 2), (How::Data, 3)]
    );
    assert_eq!(positions(1), [(How::Handle, 0)]);
    assert_eq!(positions(6), [(How::Data, 0), (How::Data, 1)]);
    let reads: Vec<&String> = source.calls[1].reads.iter().collect();
    assert_eq!(reads, ["qkv.bias", "qkv.weight"]);
}

#[test]
fn kernels_name_their_values() {
    let package = arrange(calls::source(SOURCE).unwrap(), None).unwrap();
    let paths: Vec<String> = package.nodes.iter().map(|n| n.path.join(".")).collect();
    assert_eq!(
        paths[..4],
        [
            "cpp_fused_native_layer_norm_0",
            "qkv.addmm",
            "bmm",
            "cpp_fused__softmax_amax_div_mul_sub_1",
        ]
    );
    assert_eq!(paths[4], "bmm_1");
    assert!(package.nodes.iter().all(|node| node.shows == Shows::All));
}

#[test]
fn a_file_names_values_as_the_program_does() {
    let nodes = given(
        r#"{"version": 2, "source": CRC, "class": "Attention", "inputs": ["x"], "scopes": [["qkv", "nn.Linear", "qkv"]],
            "nodes": [
              {"kernel": "qkv.addmm", "path": "qkv.linear", "target": "aten::linear", "output": 0, "sizes": [-1, 5, 24],
               "fused": null},
              {"kernel": "qkv.addmm", "path": "transpose", "target": "aten::transpose", "output": 0, "sizes": [5, -1, 24],
               "order": [1, 0, 2], "fused": null},
              {"kernel": "qkv.addmm", "path": "chunk", "target": "aten::chunk", "output": null, "sizes": null,
               "fused": "gone"}]}"#,
    )
    .unwrap();
    let at = |path: &str| nodes.iter().find(|node| node.path.join(".") == path);
    let sizes = vec![-1, 5, 24];
    let view = Some(View { sizes, order: None });
    assert_eq!(
        at("qkv.linear").unwrap().shows,
        Shows::One { output: 0, view }
    );
    let view = Some(View {
        sizes: vec![5, -1, 24],
        order: Some(vec![1, 0, 2]),
    });
    assert_eq!(
        at("transpose").unwrap().shows,
        Shows::One { output: 0, view }
    );
    assert_eq!(at("chunk").unwrap().shows, Shows::Nothing("gone".into()));
    assert!(at("qkv.addmm").is_none() && at("bmm").is_some());
}

#[test]
fn names_that_do_not_fit_are_refused() {
    let file = |version: u32, source: &str, kernel: &str| {
        format!(
            r#"{{"version": {version}, "source": {source}, "class": "A", "inputs": [], "scopes": [], "nodes": [
                {{"kernel": "{kernel}", "path": "a", "target": "", "output": 0, "sizes": null, "fused": null}}]}}"#
        )
    };
    let twice =
        file(2, "CRC", "bmm").replace(r#""sizes": null"#, r#""sizes": [5, 5], "order": [0, 0]"#);
    for (json, why) in [
        (file(3, "CRC", "bmm"), "its version is 3"),
        (file(1, "7", "bmm"), "another compilation"),
        (twice, "the order of `a` does not name"),
        (file(1, "CRC", "nothing"), "`nothing` has no such value"),
        ("{".to_owned(), "EOF"),
    ] {
        let error = given(&json).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn sources_without_kernels_or_with_branches_are_told_apart() {
    let branch = SOURCE.replacen(
        "    cpp_fused_gelu_view_2(",
        "    if (s77 > 3) cpp_fused_gelu_view_2(",
        1,
    );
    let other = SOURCE.replace("::run_impl(", "::other(");
    let none = "void M::run_impl(int a) { return; }";
    for (text, why) in [
        (branch.as_str(), "condition"),
        (&other, "run_impl"),
        (none, "no kernel"),
    ] {
        let error = calls::source(text).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}
