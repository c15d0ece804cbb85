// The C++ binding in a program without libtorch: saved graphs, paths, descriptions of patches, arrays.
//
//   alone CASE        runs one check; GRAPH names a saved graph of TupleOutputModule, and FOLDER is for files
#include <graphpatch.hpp>

#include "check.hpp"

#include <fstream>

#if GRAPHPATCH_TORCH
#error "this is the program without libtorch"
#endif

namespace gp = graphpatch;

namespace {

std::string environment(const char* name) {
    const char* value = std::getenv(name);
    require(value != nullptr, std::string(name) + " is set");
    return value;
}

void graphs() {
    const auto graphs = gp::Graphs::load(environment("GRAPH"));
    require(graphs.size() == 1 && !graphs.empty(), "one graph");
    const gp::Node root = graphs[0];
    same(root.names(), {"x", "linear", "add", "linear_1", "output"});
    is(root.kind(), "Graph(5)");
    is(root["linear.weight"].shape(), "Tensor(3, 2)");
    is(root["output"].kind(), "tuple(2)");
    same(root["output"].names(), {"sub_0", "sub_1"});
    is(root["output"].children()[1].path(), "output|sub_1");
    is(root["output"].children()[1].kind(), "Tensor(3, 3)");
    is(root["linear"]["input"].path(), "linear.input");
    require(root["add"].code().find("models.py") != std::string::npos, "a leaf says where it was called");
    require(root.code().find("def forward(self, x):") == 0, "a scope is a function");
    same(graphs.complete("linear_1.w"), {"linear_1.weight"});
    graphs.check({"x", "output|sub_0"});
    throws<gp::Error>([&] { graphs.check({"linear", "nowhere"}); }, "nowhere");
    throws<gp::Error>([&] { root["linear.nothing"]; }, "no node 'nothing'");
    throws<gp::Error>([&] { root["linear"].shape(); }, "scope");
    throws<gp::Error>([&] { graphs[1]; }, "number 1 of 1");
    throws<gp::Error>([&] { graphs["Other"]; }, "no graph of \"Other\"");
    const auto file = environment("FOLDER") + "/again.json";
    graphs.save(file);
    const gp::Node again = gp::Graphs::load(file)[0];  // it keeps its graph alive
    is(again.tree(), root.tree());
    is(graphs.json(0), gp::Graphs::load(file).json(0));
    throws<gp::Error>([] { gp::Graphs::load("no/such.json"); }, "no/such.json");
}

void nodes() {
    const gp::Node root = gp::Graphs::load(environment("GRAPH"))[0];
    const gp_node scope = root.info(), tensor = root["linear"]["weight"].info(), tuple = root["output"].info();
    require(scope.kind == GP_NODE_KIND_SCOPE && scope.value == 0 && scope.children == 5 && root.is_scope(), "the root");
    require(tensor.kind == GP_NODE_KIND_PARAMETER && tensor.value == GP_VALUE_KIND_TENSOR && tensor.rank == 2, "a parameter");
    require(tuple.kind == GP_NODE_KIND_OUTPUT && tuple.value == GP_VALUE_KIND_TUPLE && tuple.children == 2, "a tuple");
    require(root["output|sub_0"].info().kind == GP_NODE_KIND_ELEMENT, "an element");
    const std::vector<gp::SizeRange> sizes{{3, 3}, {2, 2}};
    require(root["linear.weight"].sizes() == sizes && root["output"].sizes().empty() && root.sizes().empty(), "sizes");
    is(root.child(3).path(), "linear_1");
    is(root["output"].child(1).path(), "output|sub_1");
    throws<gp::Error>([&] { root.child(5); }, "5");
    throws<gp::Error>([&] { root["x"].child(0); }, "0");
    // Nodes are found by their names, by the other name of a first call, and through containers.
    is(root["linear_0.weight"].path(), "linear.weight");
    is(root["output"]["sub_0"].path(), "output|sub_0");
    is(root["output.sub_0"].path(), "output|sub_0");
    is(root["linear"][""].path(), "linear");
    throws<gp::Error>([&] { root["output"]["sub_2"]; }, "sub_2");
    throws<gp::Error>([&] { root["a..b"]; }, "a..b");
}

// Dict keys that are no identifiers, and sizes that differed between runs.
void keys() {
    const std::string file = environment("FOLDER") + "/keys.json";
    const auto tensor = [](const std::string& shape) {
        return "{\"tensor\":{\"shape\":[" + shape + "],\"dtype\":\"float32\",\"device\":\"cpu\",\"layout\":\"strided\"}}";
    };
    std::ofstream(file) << "{\"format\":1,\"graphs\":[{\"name\":\"M.forward\",\"root\":{\"name\":\"<root>\",\"kind\":\"scope\","
                           "\"children\":[{\"name\":\"x\",\"kind\":\"input\",\"value\":{\"dict\":[[\"a.b\","
                        << tensor("1,[5,128]") << "],[\"two\\nlines\"," << tensor("2") << "],[\"\"," << tensor("3")
                        << "]]}}]},\"runs\":1}]}";
    const gp::Node dict = gp::Graphs::load(file)[0]["x"];
    same(dict.names(), {"a.b", "two\nlines", ""});
    const std::vector<gp::Node> elements = dict.children();
    const std::vector<gp::SizeRange> sizes{{1, 1}, {5, 128}};
    require(elements.size() == 3 && elements[0].sizes() == sizes, "a size that differed");
    is(elements[0].path(), "x|a\\.b");
    is(elements[1].shape(), "Tensor(2)");
    throws<gp::Error>([&] { elements[2].info(); }, "");
}

void arrays() {
    const std::vector<float> numbers{1, 2, 3, 4, 5, 6};
    gp::Array array(numbers, {2, 3});
    require((array.shape() == std::vector<int64_t>{2, 3}) && array.size() == 6 && array.is_on_cpu(), "what it is");
    require(array.to_vector<float>() == numbers && array.data<float>() != numbers.data(), "a copy of the numbers");
    throws<gp::Error>([&] { array.data<double>(); }, "32 bits");
    throws<gp::Error>([&] { gp::Array(numbers, {7}); }, "7 elements");
    throws<gp::Error>([&] { gp::Array(numbers.data(), {-1}); }, "-1");
    gp::Array moved = std::move(array);
    gp::Array taken(moved.release());
    require(taken.to_vector<float>() == numbers, "handed over");
    const gp::Array empty(std::vector<int64_t>{}, {0, 3});
    require(empty.size() == 0 && empty.to_vector<int64_t>().empty(), "nothing in it");
    const gp::Value value(taken), copy = value, number = 3, real = 0.5, yes = true, text = gp::Value::text("1+2j");
    require(copy.get() == value.get() && number.get() && real.get() && yes.get() && text.get(), "values");
    throws<gp::Error>([] { gp::Value::text("@none.npy"); }, "none.npy");
}

// When patches are removed that no run has reached, a note says so: one note for all that are removed together.
void missed() {
    gp::Session session = gp::Session::detached();
    {
        auto patch = session.patch(gp::zero("a.b"));
        require(patch.missed(), "no run came by");
        auto other = std::move(patch);
    }
    same(session.notes(), {"a patch never matched: a.b: no run came by there"});
    {
        auto set = session.patches({gp::zero("c").slice("[0]"), gp::probe("d")});
        same(set.missed(), {"c", "d"});
        set.remove();
        require(set.missed().empty(), "they are gone");
    }
    is(session.notes().at(1), "patches never matched: c, d: no run came by there");
    session.patch("e[0]=add:2").remove();
    // Only the session can tell of a patch that was given to keep().
    session.patch(gp::zero("f")).keep();
    same(session.missed(), {"a.b=zero", "c[0]=zero", "d=probe", "e[0]=add:2", "f=zero"});
    is(session.notes().at(2), "a patch never matched: e[0]=add:2: no run came by there");
    try {
        auto patch = session.patch(gp::zero("f"));
        throw std::runtime_error("this tells more");
    } catch (const std::runtime_error&) {
    }
    require(session.notes().size() == 3, "an exception left the block");
}

void patches() {
    is(gp::parse_path("a.b|sub_1"), "a.b|sub_1");
    is(gp::parse_slice("[ ..., ::2]"), "[..., ::2]");
    throws<gp::Error>([] { gp::parse_path("a..b"); }, "at character 2");
    throws<gp::Error>([] { gp::Session attached; }, "libtorch");
    try {
        gp::Session attached;
    } catch (const gp::Error& error) {
        require(error.status() == GP_STATUS_TORCH, "what kind of error it is");
    }
    gp::Session session = gp::Session::detached();
    require(session.graphs().empty() && session.notes().empty() && session.runs() == 0, "nothing yet");
    auto set =
        session.patches({gp::zero("a").slice("[0]").index(-1).index(gp::Array(std::vector<int64_t>{0, 1}, {2})).runs("1.."),
                         gp::add("a", 1).this_thread(), gp::replace("b", gp::Array(std::vector<float>{1}, {1})),
                         gp::custom("c", [](const gp::Array&) { return std::optional<gp::Array>(); }), gp::probe("d"),
                         gp::record("e", 2), gp::zero("f").live(), gp::probe("g").keep_on_device()});
    require(set.size() == 8 && set[4].kept() == 0 && set[0].counts().matched == 0 && set[0].last_error().empty(), "registered");
    for (gp::Patch& patch : set) patch.enable(false);
    throws<gp::Error>([&] { set[4].value(); }, "0 values");
    throws<gp::Error>([&] { set[0].set_value(3); }, "");
    const gp::PatchSet moved = std::move(set);
    require(moved.size() == 8 && set.size() == 0, "handed on");
    gp::Probe probe = session.probe("x");
    gp::Record record = session.record("y", 3);
    require(probe.empty() && record.empty() && record.dropped() == 0 && record.values().empty(), "nothing was kept");
    throws<gp::Error>([&] { auto bad = session.patch(gp::probe("x").slice("[0]")); }, "index");
    throws<gp::Error>([&] { auto bad = session.patch(gp::zero("x").slice("[0")); }, "[0");
    throws<gp::Error>([&] { auto bad = session.patch(gp::zero("x").runs("never")); }, "never");
    auto patch = session.patch("z=add:2");
    patch.remove();
    patch.remove();
    throws<gp::Error>([&] { patch.enable(true); }, "");
    auto kept = session.patch("z=zero");
    const uint64_t id = kept.id();
    kept.keep();
    gp_patch_counts counts = GP_PATCH_COUNTS_INIT;
    require(gp_patch_get_counts(session.get(), id, &counts) == GP_STATUS_OK, "it holds on");
    is(gp::version(), gp_version());
}

const std::map<std::string, void (*)()> kChecks = {{"graphs", graphs}, {"nodes", nodes},     {"keys", keys},
                                                   {"arrays", arrays}, {"patches", patches}, {"missed", missed}};

}  // namespace

int main(int argc, char** argv) { return checked(argc, argv, kChecks); }
