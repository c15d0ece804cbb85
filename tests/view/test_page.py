"""The page of `graphpatch view` in a real browser, without a network."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pages import GRAPHPATCH, HOSTS, ROOT, run, synthetic, until

Open = Callable[..., Any]
SELF = "bert.encoder.layer_0.attention.self"
# Two noisy cores take 0.2 to 0.5 s, so a page that is slow by design fails, and a busy machine does not.
OPENS_WITHIN_MS = 2000


def chosen(page: Any) -> str:
    return page.locator("#path").inner_text()


def row(page: Any, path: str) -> Any:
    return page.locator(f"#rows .row[data-path='{path}']")


def edges(page: Any) -> set[tuple[str, str, str]]:
    script = "all => all.map(e => [e.dataset.from, e.dataset.to, e.dataset.dig || ''])"
    return {tuple(edge) for edge in page.locator(".edge").evaluate_all(script)}


def links(page: Any, which: str) -> list[str]:
    return page.locator(f"[data-list={which}] button").evaluate_all("all => all.map(e => e.dataset.path)")


def test_the_tree_is_the_one_that_show_prints(any_host: Path, open_page: Open) -> None:
    page = open_page(any_host)
    page.locator("#tree").focus()
    # Unfolds the whole tree by keys, and reads it row by row.
    names = page.evaluate("""() => {
        for (let level = 0; level < 12; level++) {
            for (const row of document.querySelectorAll("#rows .row[aria-expanded=false] .twist")) row.click();
        }
        const seen = new Map();
        const tree = document.getElementById("tree");
        const collect = () => document.querySelectorAll("#rows .row").forEach(row => {
            seen.set(parseInt(row.style.top), [row.querySelector(".name").textContent, row.querySelector(".label").textContent]);
        });
        return new Promise(done => {
            const step = () => {
                const closed = [...document.querySelectorAll("#rows .row[aria-expanded=false] .twist")];
                if (closed.length) { closed[0].click(); requestAnimationFrame(step); return; }
                collect();
                if (tree.scrollTop + tree.clientHeight >= tree.scrollHeight - 1) {
                    done([...seen.entries()].sort((a, b) => a[0] - b[0]).map(e => e[1].join(": ")));
                    return;
                }
                tree.scrollTop += 300;
                requestAnimationFrame(() => requestAnimationFrame(step));
            };
            step();
        });
    }""")
    printed = [line.lstrip("│├└─ ") for line in run(GRAPHPATCH, "show", any_host).stdout.splitlines()]
    assert names == printed


def test_a_click_shows_everything_about_a_node(encoder: Path, open_page: Open) -> None:
    page = open_page(encoder, hash=f"#{SELF}.query")
    row(page, f"{SELF}.transpose").click()
    assert chosen(page) == f"{SELF}.transpose" and page.evaluate("location.hash") == f"#{SELF}.transpose"
    facts = page.locator("#details dl").first.inner_text()
    for part in ["Tensor(1, 12, 9..13, 32)", "float32", "cpu", "strided", "aten::transpose"]:
        assert part in facts
    assert links(page, "producers") == [f"{SELF}.view"] and links(page, "consumers") == [f"{SELF}.matmul"]
    page.locator("[data-list=consumers] button").click()
    assert chosen(page) == f"{SELF}.matmul"
    assert set(links(page, "producers")) == {f"{SELF}.transpose", f"{SELF}.transpose_3"}
    assert "modeling_bert.py" in page.locator("#code").inner_text()
    page.go_back()
    until(page, f"document.getElementById('path').textContent === '{SELF}.transpose'")


def test_a_scope_shows_its_code_and_its_drawing(encoder: Path, open_page: Open) -> None:
    page = open_page(encoder, SELF)
    assert chosen(page) == SELF
    code = page.locator("#code").inner_text()
    assert (
        "def forward(self, argument_1, attention_mask):" in code
        and "matmul = aten.matmul(transpose, transpose_3)" in code
    )
    drawn = edges(page)
    expected = flow(json.loads(encoder.read_text())["graphs"][0]["root"], SELF)
    assert len(expected) > 20 and drawn == {(*edge, "") for edge in expected}
    page.locator(f".box[data-path='{SELF}.query']").dblclick()
    assert page.locator("#crumbs strong").inner_text() == "query"
    assert (f"{SELF}.query.input", f"{SELF}.query.linear", "") in edges(page)
    page.locator("#parameters").check()
    assert (f"{SELF}.query.weight", f"{SELF}.query.linear", "") in edges(page)
    page.locator("#crumbs button", has_text="attention").click()
    assert page.locator("#crumbs strong").inner_text() == "attention"


def flow(root: dict[str, Any], path: str) -> set[tuple[str, str]]:
    """The data flow between a scope's nodes other than parameters, read from the file without the page's code."""
    scope = root
    for name in path.split("."):
        scope = next(child for child in scope["children"] if child["name"] == name)
    kinds = {child["name"]: child["kind"] for child in scope["children"]}

    def names(arg: Any) -> list[str]:
        if isinstance(arg, list):
            return [name for item in arg for name in names(item)]
        ((kind, value),) = arg.items()
        return [value.split("|")[0]] if kind == "node" else names(value) if kind in ("list", "tuple") else []

    found = set()
    for child in scope["children"]:
        if child["kind"] == "input":
            continue
        users = [grandchild for grandchild in child.get("children", []) if grandchild["kind"] == "input"] or [child]
        for user in users:
            for name in names([*user.get("args", []), *(value for _, value in user.get("kwargs", []))]):
                if kinds.get(name, "parameter") != "parameter":
                    found.add((f"{path}.{name}", f"{path}.{child['name']}"))
    return found


# A node of each host: what it is made from, what uses it, and the innermost line of its source.
NODES = {
    "encoder": (
        f"{SELF}.matmul",
        [f"{SELF}.transpose", f"{SELF}.transpose_3"],
        [f"{SELF}.div"],
        ("modeling_bert", "torch.matmul"),
    ),
    "gpt2": (
        "transformer.h_1.mlp.act.tanh",
        ["transformer.h_1.mlp.act.mul_2"],
        ["transformer.h_1.mlp.act.add_1"],
        ("activations.py", "torch.tanh"),
    ),
    "scopes": (
        "layers_1.attn.softmax",
        ["layers_1.attn.masked_fill"],
        ["layers_1.attn.matmul_1"],
        ("transformer.hpp", "scores = scores.masked_fill(mask, -1e9).softmax(-1);"),
    ),
    "modules": (
        "blocks_0_fc.addmm",
        ["blocks_0_fc.bias", "embed.embedding", "blocks_0_fc.t"],
        ["tanh"],
        ("flat.cpp", "torch::tanh(fc(x))"),
    ),
    "plain": ("addmm_2", ["randn_2", "randn", "randn_1"], ["relu_1"], ("flat.cpp", "torch::addmm(b1, x, w1)")),
}


@pytest.mark.parametrize("host", HOSTS)
def test_every_host_shows_flow_and_source(host: str, request: pytest.FixtureRequest, open_page: Open) -> None:
    path, made_from, used_by, (file, text) = NODES[host]
    page = open_page(request.getfixturevalue(host), hash=f"#{path}")
    assert chosen(page) == path and row(page, path).get_attribute("aria-selected") == "true"
    assert links(page, "producers") == made_from and links(page, "consumers") == used_by
    source = page.locator("#code").inner_text()
    assert file in source and text in source
    assert page.locator(f".box.chosen[data-path='{path}']").count() == 1
    drawn = edges(page)
    for other in made_from:
        parameter = page.locator(f"#rows .row.parameter[data-path='{other}']").count()
        assert ((other, path, "") in drawn) == (not parameter), (other, drawn)
    search = file.split(".")[0]
    page.keyboard.press("/")
    page.keyboard.type(f"file:{search} {path}")
    assert page.locator(".found").first.get_attribute("data-path") == path


def test_elements_of_containers(gpt2: Path, open_page: Open) -> None:
    attention = "transformer.h_0.attn"
    page = open_page(gpt2, hash=f"#{attention}.split|sub_1")
    assert chosen(page) == f"{attention}.split|sub_1"
    assert links(page, "consumers") == [f"{attention}.view"]
    assert (f"{attention}.split", f"{attention}.view", "sub_1") in edges(page)
    assert "cache_position" in page.locator("#part").inner_text()  # an input that nothing inside uses
    page.locator(f".box[data-path='{attention}.view']").click()
    source = page.locator("#code").inner_text()
    assert "modeling_gpt2.py" in source and "key_states" in source


@pytest.mark.parametrize(
    "query, some, none",
    [
        ("softmax", f"{SELF}.softmax", f"{SELF}.matmul"),
        ("op:matmul layer_0", f"{SELF}.matmul", "bert.encoder.layer_1.attention.self.matmul"),
        ("shape:30522,*", "bert.embeddings.word_embeddings.weight", "bert.embeddings.output"),
        ("shape:...,12,9..13,9..13", f"{SELF}.softmax", f"{SELF}.transpose"),
        ("class:BertIntermediate", "bert.encoder.layer_3.intermediate", f"{SELF}.softmax"),
        ("file:modeling_bert layer_0 op:div", f"{SELF}.div", "bert.encoder.layer_0"),
        ("kind:parameter word_embeddings", "bert.embeddings.word_embeddings.weight", "bert.embeddings.word_embeddings"),
    ],
)
def test_search_as_you_type(encoder: Path, open_page: Open, query: str, some: str, none: str) -> None:
    page = open_page(encoder)
    page.keyboard.press("/")
    page.keyboard.type(query)
    found = page.locator(".found").evaluate_all("all => all.map(e => e.dataset.path)")
    assert some in found and none not in found and f"{len(found)} node" in page.locator("#matches").inner_text()
    for _ in range(found.index(some)):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert chosen(page) == some
    page.keyboard.press("Escape")
    assert row(page, some).get_attribute("aria-selected") == "true" and page.locator("#tree").is_visible()


PATTERNS = [
    "*,768",
    "30522,*",
    "...,12,9..13,9..13",
    "...",
    "()",
    "Tensor(1, 5..128, *)",
    "1, 9, ...",
    "1,14..20,*",
    "*,*,...,*,*",
    "3",
    "1,...,3",
    "2..4,1,*",
    "6..9,1,*",
    "384,",
    "…,1,3",
    "(1,1,3)",
    "(5 .. 7, 1, 2)",
    "...,...",
    "5..4",
    "3,,4",
    "(3",
    "3;4",
    "-1",
]


@pytest.mark.parametrize("source", ["encoder", "dynamic"])
def test_shapes_are_those_of_show(encoder: Path, open_page: Open, source: str) -> None:
    """The same patterns, through the page and through `show --shape`; `dynamic` has ranges and containers of several lengths."""
    graph = encoder if source == "encoder" else ROOT / "tests/fuzz/seeds/graph-dynamic.json"
    page = open_page(graph)
    found_some, refused = 0, 0
    for pattern in PATTERNS:
        shown = subprocess.run(
            [str(GRAPHPATCH), "show", str(graph), f"--shape={pattern}"], capture_output=True, text=True
        )
        paths = [line.split(": ")[0] for line in shown.stdout.splitlines()]
        page.locator("#search").fill(f"shape:{pattern}")
        said = page.locator("#matches").inner_text()
        found = page.locator(".found").evaluate_all("all => all.map(e => e.dataset.path)")
        if shown.returncode == 2:
            assert said.startswith("shape: ") and not found, pattern
            refused += 1
            continue
        assert said.split(" ")[0].replace(",", "") == str(len(paths)) and found == paths[:300], pattern
        found_some += bool(paths)
    assert found_some >= 6 and refused == 6
    # Words beside a shape with spaces are words of their own.
    page.locator("#search").fill("shape:*, *, ... output")
    assert all("output" in path for path in page.locator(".found").evaluate_all("all => all.map(e => e.dataset.path)"))


def test_keys_move_in_the_tree(encoder: Path, open_page: Open) -> None:
    page = open_page(encoder)
    for key, expected in [
        ("ArrowDown", "input_ids"),
        ("ArrowDown", "attention_mask"),
        ("ArrowDown", "bert"),
        ("ArrowRight", "bert.input_ids"),
        ("ArrowLeft", "bert"),
        ("ArrowLeft", "bert"),
        ("ArrowDown", "output"),
        ("Home", "<root>"),
        ("End", "output"),
    ]:
        page.keyboard.press(key)
        assert chosen(page) == expected, key
    tree = page.locator("#tree")
    active = page.locator(f"#{tree.get_attribute('aria-activedescendant')}")
    assert active.get_attribute("data-path") == "output" and active.get_attribute("aria-level") == "2"
    assert active.get_attribute("aria-posinset") == active.get_attribute("aria-setsize") == "4"
    assert row(page, "bert").get_attribute("aria-expanded") == "false"


def test_the_path_is_copied(encoder: Path, open_page: Open) -> None:
    page = open_page(encoder, hash=f"#{SELF}.softmax")
    page.locator(".copy").click()
    until(page, "document.querySelector('.copy').textContent === 'Copied'")
    page.locator("#search").focus()
    page.keyboard.press("Control+V")
    assert page.locator("#search").input_value() == f"{SELF}.softmax"


def test_values_are_described(encoder: Path, folder: Path, open_page: Open) -> None:
    page = open_page(encoder, "--values", folder / "values.safetensors", hash=f"#{SELF}.softmax")
    kept = load_file(str(folder / "values.safetensors"))

    def shown(key: str) -> dict[str, float]:
        return {
            name: float(page.locator(f"[data-key='{key}'] [data-statistic={name}]").inner_text())
            for name in ("min", "max", "mean", "std", "L2")
        }

    def expected(tensor: torch.Tensor) -> dict[str, float]:
        tensor = tensor.double()
        return {
            "min": tensor.min(),
            "max": tensor.max(),
            "mean": tensor.mean(),
            "std": tensor.std(),
            "L2": tensor.norm(),
        }

    key = f"{SELF}.softmax"
    assert shown(key) == pytest.approx({name: float(value) for name, value in expected(kept[key]).items()}, rel=1e-4)
    bars = page.locator(f"[data-key='{key}'] .histogram title").evaluate_all(
        "all => all.map(e => Number(e.textContent))"
    )
    counts = torch.histc(kept[key].double(), bins=len(bars))
    assert (
        sum(bars) == kept[key].numel() and (counts - torch.tensor(bars)).abs().sum() <= 4
    )  # a value at the edge of two bins may be counted in either
    page.goto(page.url.split("#")[0] + "#bert.encoder.layer_0.output")
    records = [key for key in kept if key.startswith("bert.encoder.layer_0.output#")]
    until(page, "document.querySelectorAll('.value').length > 1")
    assert page.locator(".value").count() == len(records) == 6
    assert shown(records[-1]) == pytest.approx({n: float(v) for n, v in expected(kept[records[-1]]).items()}, rel=1e-4)


def test_a_sweep_is_a_heat_map(encoder: Path, sweep: Path, open_page: Open) -> None:
    table = json.loads(sweep.read_text())
    rows = {row["node"]: row for row in table["rows"]}
    page = open_page(encoder, "--sweep", sweep)
    cell = lambda path: page.locator(f"#heat .cell[data-path='{path}']")
    assert page.locator("#heat thead th").all_inner_texts() == ["–", "0", "1", "2", "3", "4", "5"]
    assert page.locator("#heat tbody th").all_inner_texts() == [
        "bert.embeddings.output",
        "bert.encoder.layer_*.intermediate.output",
        "bert.encoder.layer_*.output",
    ]
    assert page.locator("#heat .cell").count() == len(rows) == 13
    for at, metric in enumerate(table["metrics"]):
        page.locator("#metric").select_option(label=metric["name"])
        values = {path: row["values"][at] for path, row in rows.items() if not row["why"]}
        far = {path: value - metric["bare"] for path, value in values.items()}
        most = max(map(abs, far.values()))
        assert f"{most + metric['bare']:.3g}".rstrip("0") in page.locator("#most").inner_text()
        for path, value in values.items():
            assert float(cell(path).inner_text()) == pytest.approx(value, rel=0.006)
            title = cell(path).get_attribute("title")
            where, said = title.split("\n")
            number = float(said.removeprefix(f"{metric['name']}: ").split(",")[0])
            assert where == path and number == pytest.approx(value, rel=1e-12)
            assert ("from the bare run's" in title) == (metric["measure"] == "regex")
            color = [
                int(part) for part in cell(path).evaluate("e => getComputedStyle(e).backgroundColor")[4:-1].split(",")
            ]
            red, _, blue = color
            # White, and the redder or the bluer the farther.
            assert (red >= blue) == (far[path] >= 0) and min(color) == pytest.approx(
                255 - abs(far[path]) / most * (231 if far[path] > 0 else 222), abs=2
            )
            ink = cell(path).evaluate("e => getComputedStyle(e).color")
            ground = luminance((red, color[1], blue))
            assert (ink == "rgb(0, 0, 0)") == (ground > 0.5) or abs(ground - 0.5) < 0.1
    failed = next(path for path, row in rows.items() if row["why"])
    assert cell(failed).inner_text() == "failed" and rows[failed]["why"] in cell(failed).get_attribute("title")
    assert "gradient" in cell(failed).evaluate("e => getComputedStyle(e).backgroundImage")
    # A cell leads to its node: in the tree, which has the same color, and in the details.
    path = "bert.encoder.layer_3.output"
    cell(path).click()
    assert chosen(page) == path and row(page, path).get_attribute("aria-selected") == "true"
    assert (
        cell(path).get_attribute("aria-pressed") == "true"
        and page.locator("#heat .cell[aria-pressed=true]").count() == 1
    )
    background = "e => getComputedStyle(e).backgroundColor"
    assert row(page, path).locator(".heat").evaluate(background) == cell(path).evaluate(background)
    assert row(page, "bert.encoder.layer_3").locator(".heat").count() == 0
    facts = page.locator("[data-list=sweep]").inner_text()
    assert str(rows[path]["values"][1])[:8] in facts and "(bare " in facts
    # By keyboard, the map is one tab stop; arrows move from cell to cell and skip empty places.
    assert page.locator("#heat .cell[tabindex='0']").count() == 1
    page.locator("#heat .cell[tabindex='0']").focus()
    for key, expected in [
        ("ArrowUp", "bert.encoder.layer_3.intermediate.output"),
        ("ArrowUp", None),
        ("ArrowRight", "bert.encoder.layer_4.intermediate.output"),
        ("ArrowLeft", "bert.encoder.layer_3.intermediate.output"),
    ]:
        page.keyboard.press(key)
        if expected:
            assert page.evaluate("document.activeElement.dataset.path") == expected
    page.keyboard.press("Enter")
    assert chosen(page) == "bert.encoder.layer_3.intermediate.output"
    # A page without a sweep does not show the map.
    assert open_page(encoder).locator("#sweep").is_hidden()


@pytest.mark.parametrize("dark", [False, True])
def test_a_sweep_looks_right(encoder: Path, sweep: Path, open_page: Open, dark: bool) -> None:
    page = open_page(encoder, "--sweep", sweep, hash="#bert.encoder.layer_0.output", dark=dark)
    boxes = {name: page.locator(name).bounding_box() for name in ["section", "#bar", "#canvas", "#sweep", "#map"]}
    tops = [boxes[name]["y"] for name in ["#bar", "#canvas", "#sweep", "#map"]]
    assert tops == sorted(tops) and boxes["#canvas"]["height"] > 300
    assert boxes["#sweep"]["y"] + boxes["#sweep"]["height"] == pytest.approx(860, abs=1)
    assert boxes["#map"]["y"] + boxes["#map"]["height"] <= 861
    page.locator("#sweep summary").click()
    assert page.locator("#canvas").bounding_box()["height"] > boxes["#canvas"]["height"] + 100


def test_ten_thousand_nodes_open_in_two_seconds(big: Path, open_page: Open) -> None:
    page = open_page(big)
    shown = page.evaluate("performance.getEntriesByName('shown')[0].startTime")
    print(f"\nview: {page.locator('#counts').inner_text()} on the screen after {shown:.0f} ms")
    assert page.locator("#counts").inner_text().startswith("10,0") and shown < OPENS_WITHIN_MS
    page.keyboard.press("/")
    began = page.evaluate("performance.now()")
    page.keyboard.insert_text("layers_77.add_42")
    assert page.locator(".found").first.get_attribute("data-path") == "layers_77.add_42"
    assert page.evaluate("performance.now()") - began < OPENS_WITHIN_MS
    page.keyboard.press("Enter")
    assert chosen(page) == "layers_77.add_42"
    page.keyboard.press("Escape")
    assert page.locator("#rows .row").count() < 100  # only those in sight
    assert links(page, "producers") == ["layers_77.add_41", "layers_77.add_20"]


def test_a_long_scope_is_drawn_in_part(folder: Path, open_page: Open) -> None:
    graph = synthetic(layers=1, wide=1000)
    (folder / "long.json").write_text(json.dumps({"format": 1, "graphs": [graph]}))
    page = open_page(folder / "long.json", hash="#layers_0.add_500")
    assert page.locator("#part").inner_text().startswith("300 of 999 nodes, those around add_500")
    assert ("layers_0.add_499", "layers_0.add_500", "") in edges(page)


def test_texts_of_a_graph_are_never_markup(folder: Path, open_page: Open) -> None:
    evil = "</script><img src=x onerror=alert(1)><b>\"'&amp;\\ \u2028{{script}}"
    value = {"dict": [[evil, "int"]]}
    graphs = [
        {
            "name": name,
            "runs": 1,
            "root": {
                "name": "<root>",
                "kind": "scope",
                "children": [
                    {"name": "x", "kind": "input", "value": value},
                    {
                        "name": "op",
                        "kind": "op",
                        "target": evil,
                        "value": {"other": evil},
                        "args": [{"node": "x"}],
                        "frames": [{"file": evil, "line": 3, "function": evil, "text": evil}],
                    },
                ],
            },
        }
        for name in [evil, "Second.forward"]
    ]
    (folder / "evil.json").write_text(json.dumps({"format": 1, "graphs": graphs}))
    page = open_page(folder / "evil.json", hash="#op")
    assert page.locator("img, b").count() == 0 and evil in page.locator("#details dl").first.inner_text()
    assert evil in page.locator("#code").text_content()
    # Several graphs in one file: chosen by a list, and by the address.
    page.locator("#graphs").select_option(label="Second.forward")
    page.locator("#rows .row[data-path=op]").click()
    assert page.evaluate("location.hash") == "#2:op"
    page.reload()
    page.wait_for_selector("#rows .row")
    assert page.locator("#graphs").input_value() == "1" and chosen(page) == "op"


@pytest.mark.parametrize("dark", [False, True])
def test_the_page_looks_right(encoder: Path, open_page: Open, dark: bool, tmp_path: Path) -> None:
    """A screenshot, judged by what does not depend on the machine's fonts: panes, colours, boxes, contrast."""
    from PIL import Image

    page = open_page(encoder, hash=f"#{SELF}.matmul", dark=dark)
    page.screenshot(path=str(tmp_path / "page.png"))
    image = Image.open(tmp_path / "page.png").convert("RGB")
    assert image.size == (1440, 860)
    ground = (22, 24, 29) if dark else (255, 255, 255)
    colours = dict(image.getcolors(1 << 24) or [])
    assert sum(count for count, colour in colours.items() if colour == ground) > 0.2 * 1440 * 860
    boxes = {name: page.locator(name).bounding_box() for name in ["header", "nav", "section", "aside"]}
    assert boxes["nav"]["x"] == 0 and boxes["aside"]["x"] + boxes["aside"]["width"] == 1440
    assert boxes["nav"]["width"] + boxes["section"]["width"] + boxes["aside"]["width"] == pytest.approx(1440, abs=1)
    assert all(
        boxes[name]["y"] + boxes[name]["height"] == pytest.approx(860, abs=1) for name in ["nav", "section", "aside"]
    )

    # Boxes of the drawing do not overlap, and each stands above what uses it.
    rects = page.locator(".box").evaluate_all(
        "all => Object.fromEntries(all.map(e => { const r = e.querySelector('rect').getBoundingClientRect();"
        "return [e.dataset.path, [r.left, r.top, r.right, r.bottom]]; }))"
    )
    names = list(rects)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            (left, top, right, bottom), (left2, top2, right2, bottom2) = rects[a], rects[b]
            assert right <= left2 or right2 <= left or bottom <= top2 or bottom2 <= top, (a, b)
    assert all(rects[a][3] < rects[b][1] for a, b, _ in edges(page))
    # In the picture, the selected box and row have the colour of a selection, and the text on them has enough contrast.
    fill = (38, 51, 84) if dark else (227, 235, 252)
    for area in [rects[f"{SELF}.matmul"], list(row_area(page))]:
        part = image.crop([int(area[0]) + 3, int(area[1]) + 3, int(area[2]) - 3, int(area[3]) - 3])
        pixels = list(part.getdata())
        assert pixels.count(fill) > 0.4 * len(pixels)
        assert max(abs(luminance(pixel) - luminance(fill)) for pixel in pixels) > 0.4  # letters that can be read


def row_area(page: Any) -> tuple[float, ...]:
    box = page.locator("#rows .row[aria-selected=true]").bounding_box()
    return box["x"], box["y"], box["x"] + min(box["width"], 350), box["y"] + box["height"]


def luminance(pixel: tuple[int, ...]) -> float:
    return (0.2126 * pixel[0] + 0.7152 * pixel[1] + 0.0722 * pixel[2]) / 255
