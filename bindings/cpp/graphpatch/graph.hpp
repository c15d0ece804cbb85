// Recorded graphs, and their nodes for looking around.
#pragma once

#include "error.hpp"

#include <cstddef>
#include <ostream>
#include <utility>

namespace graphpatch {
inline namespace GRAPHPATCH_NAMESPACE {

// The smallest and the largest size of one dimension that were seen, in elements.
struct SizeRange {
    int64_t smallest, largest;
    friend bool operator==(const SizeRange& a, const SizeRange& b) {
        return a.smallest == b.smallest && a.largest == b.largest;
    }
};

// A node of a graph, or an element of a node that is a container. A Node keeps its graph alive, which never changes, and may be
// copied. Any number of threads may read a Node at once. Calls throw Error: GP_STATUS_PATH, with the nearest names, for a path
// that leads to nothing, GP_STATUS_PARSE for text that is no path.
//
//   node["layers_0.mlp"].children()      node["output|sub_0"].shape()
class Node {
public:
    // The path from the root; empty for the root itself.
    const std::string& path() const noexcept { return path_; }
    // What the tree shows of it: "Graph(5)", "Tensor(1, 5..128, 768)", "tuple(2)", "int".
    std::string kind() const {
        const std::string text = tree(), head = text.substr(0, text.find('\n'));
        const size_t at = head.find(": ");
        return at == std::string::npos ? head : head.substr(at + 2);
    }
    // Facts about the node, as numbers: what it stands for (gp_node_kind), what its values were (gp_value_kind), and how many
    // dimensions and how many children or elements it has.
    gp_node info() const {
        gp_node node = GP_NODE_INIT;
        detail::check(gp_graphs_node(graphs_.get(), index_, path_.c_str(), &node));
        return node;
    }
    bool is_scope() const { return info().kind == GP_NODE_KIND_SCOPE; }
    // The sizes of a tensor over all runs, one for each of its dimensions; empty for a scalar tensor and for what is no tensor.
    std::vector<SizeRange> sizes() const {
        std::vector<int64_t> smallest(info().rank), largest(smallest.size());
        detail::check(gp_graphs_sizes(graphs_.get(), index_, path_.c_str(), smallest.data(), largest.data(), smallest.size()));
        std::vector<SizeRange> sizes;
        for (size_t at = 0; at < smallest.size(); ++at) sizes.push_back({smallest[at], largest[at]});
        return sizes;
    }
    // The sizes that were seen, as the tree shows them. GP_STATUS_PATH for a scope.
    std::string shape() const {
        return text([&](char** out) { return gp_graphs_shape(graphs_.get(), index_, path_.c_str(), out); });
    }
    // For a scope: its operations, written as a function. For a leaf: the place in the source that called the operation.
    std::string code() const {
        return text([&](char** out) { return gp_graphs_code(graphs_.get(), index_, path_.c_str(), out); });
    }
    // The node and everything below it as text.
    std::string tree() const {
        return text([&](char** out) { return gp_graphs_tree(graphs_.get(), index_, path_.c_str(), out); });
    }
    // The names of what is below: nodes of a scope, elements of a container.
    std::vector<std::string> names() const {
        std::vector<std::string> names;
        for (size_t at = 0, size = info().children; at < size; ++at) names.push_back(named_child(at).first);
        return names;
    }
    // The children or elements as nodes. No path leads to a dict's element under the key "": its node throws GP_STATUS_PARSE.
    std::vector<Node> children() const {
        std::vector<Node> children;
        for (size_t at = 0, size = info().children; at < size; ++at) children.push_back(child(at));
        return children;
    }
    // Child or element number `number`, counted from 0. GP_STATUS_ARGUMENT where it has not so many.
    Node child(size_t number) const { return Node(graphs_, index_, named_child(number).second); }
    // The node at a path below this one. The first call of a module that was called more than once may also be written
    // `linear_0`, and elements of a container may follow it behind a `.` or a `|`; path() is then as the graph writes it.
    Node operator[](const std::string& path) const {
        return Node(graphs_, index_,
                    text([&](char** out) { return gp_graphs_find(graphs_.get(), index_, path_.c_str(), path.c_str(), out); }));
    }

    friend std::ostream& operator<<(std::ostream& out, const Node& node) { return out << node.tree(); }

private:
    friend class Graphs;
    Node(std::shared_ptr<gp_graphs> graphs, size_t index, std::string path)
        : graphs_(std::move(graphs)), index_(index), path_(std::move(path)) {}

    template <class Call>
    static std::string text(Call call) {
        return detail::text(call);
    }
    // The name and the path of a child.
    std::pair<std::string, std::string> named_child(size_t number) const {
        char *name = nullptr, *path = nullptr;
        detail::check(gp_graphs_child(graphs_.get(), index_, path_.c_str(), number, &name, &path));
        const detail::OwnedText owned_name(name), owned_path(path);
        return {name, path};
    }

    std::shared_ptr<gp_graphs> graphs_;
    size_t index_;
    std::string path_;
};

// Graphs at one moment, one for each root; they do not change. Any number of threads may read them at once.
class Graphs {
public:
    explicit Graphs(gp_graphs* graphs) : raw_(graphs, gp_graphs_free) {}
    // Loads what save(), gp_graphs_save or `graphpatch run --graph` saved. GP_STATUS_FILE; GP_STATUS_FORMAT, which names
    // the place in the file.
    static Graphs load(const std::string& file) {
        gp_graphs* raw = nullptr;
        detail::check(gp_graphs_load(file.c_str(), &raw));
        return Graphs(raw);
    }
    // Saves them as JSON; a file that was there is replaced as a whole.
    void save(const std::string& file) const { detail::check(gp_graphs_save(raw_.get(), file.c_str())); }

    size_t size() const noexcept { return gp_graphs_count(raw_.get()); }
    bool empty() const noexcept { return size() == 0; }
    // The root of graph number `index`. GP_STATUS_ARGUMENT if there is none.
    Node operator[](size_t index) const {
        name(index);
        return Node(raw_, index, "");
    }
    // The root of the graph of this name.
    Node operator[](const std::string& root) const {
        for (size_t i = 0; i < size(); ++i)
            if (name(i) == root) return Node(raw_, i, "");
        throw Error(GP_STATUS_PATH, "no graph of \"" + root + "\" was recorded; there is " + listed());
    }
    // The name of graph number `index`: that of the root from whose runs it was recorded.
    std::string name(size_t index) const {
        const char* name = gp_graphs_name(raw_.get(), index);
        if (!name)
            throw Error(GP_STATUS_ARGUMENT,
                        "there is no graph number " + std::to_string(index) + " of " + std::to_string(size()));
        return name;
    }
    // The ways in which the beginning of a path can go on, as full paths.
    std::vector<std::string> complete(const std::string& prefix) const {
        return detail::lines(detail::text([&](char** out) { return gp_graphs_complete(raw_.get(), prefix.c_str(), out); }));
    }
    // Refuses paths that name no leaf, all in one error with their nearest completions. GP_STATUS_PATH, GP_STATUS_PARSE.
    void check(const std::vector<std::string>& paths) const {
        std::vector<const char*> raw;
        for (const std::string& path : paths) raw.push_back(path.c_str());
        detail::check(gp_graphs_check(raw_.get(), raw.data(), raw.size()));
    }
    // Graph number `index` as JSON text.
    std::string json(size_t index) const {
        return detail::text([&](char** out) { return gp_graphs_json(raw_.get(), index, out); });
    }

private:
    std::string listed() const {
        std::string names;
        for (size_t i = 0; i < size(); ++i) names += (i ? ", " : "") + name(i);
        return names.empty() ? "none: record a run first" : names;
    }

    std::shared_ptr<gp_graphs> raw_;
};

// The path as it is printed. GP_STATUS_PARSE, which names the character.
inline std::string parse_path(const std::string& path) {
    return detail::text([&](char** out) { return gp_path_parse(path.c_str(), out); });
}
// The same for a slice such as "[..., ::2]".
inline std::string parse_slice(const std::string& slice) {
    return detail::text([&](char** out) { return gp_slice_parse(slice.c_str(), out); });
}

} // namespace GRAPHPATCH_NAMESPACE
} // namespace graphpatch
