// Runs of programs that have no modules: everything the thread calls between two lines.
#pragma once

#include "frame.hpp"

namespace graphpatch {
inline namespace GRAPHPATCH_NAMESPACE {

// A run of the root `name` on this thread, from the line where this stands until the block ends; inside another run, a
// scope of that name.
//
//   graphpatch::Run run("encoder", {{"x", x}});
//   return run.output(torch::relu(x.matmul(w)));
class Run {
public:
    explicit Run(const std::string& name) : Run(name, {}) {}
    // The inputs are those that Scope takes.
    Run(const std::string& name, std::initializer_list<Input> inputs) {
        if (detail::Call::matters()) call_.begin(name, inputs.begin(), inputs.size());
        else call_.pass();
    }
    // The result of the run as patches leave it, like Scope::output.
    template <class T>
    std::decay_t<T> output(T&& value) {
        return call_.output(std::forward<T>(value));
    }

private:
    detail::Call call_;
};

}  // namespace GRAPHPATCH_NAMESPACE
}  // namespace graphpatch
