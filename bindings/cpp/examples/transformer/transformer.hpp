// A small GPT of torch::nn modules, with a Scope line in each forward.
#pragma once

#include <graphpatch.hpp>
#include <torch/nn.h>

#include <cmath>

struct Sizes {
    int64_t vocabulary = 50, context = 16, width = 32, heads = 4, layers = 2;
};

struct AttentionImpl : torch::nn::Module {
    explicit AttentionImpl(const Sizes& sizes)
        : heads(sizes.heads), qkv(register_module("qkv", torch::nn::Linear(sizes.width, 3 * sizes.width))),
          proj(register_module("proj", torch::nn::Linear(sizes.width, sizes.width))) {}

    torch::Tensor forward(torch::Tensor x, torch::Tensor mask) {
        graphpatch::Scope scope(this, {{"x", x}, {"mask", mask}});
        const int64_t batch = x.size(0), tokens = x.size(1), width = x.size(2), each = width / heads;
        const auto parts = graphpatch::call(qkv, x).view({batch, tokens, 3, heads, each}).permute({2, 0, 3, 1, 4}).unbind(0);
        auto scores = torch::matmul(parts[0], parts[1].transpose(-2, -1)) / std::sqrt(static_cast<double>(each));
        scores = scores.masked_fill(mask, -1e9).softmax(-1);
        // The shape is (batch, heads, tokens, each), so that a patch can select one head.
        const auto z = torch::matmul(scores, parts[2]);
        return scope.output(graphpatch::call(proj, z.transpose(1, 2).reshape({batch, tokens, width})));
    }

    int64_t heads;
    torch::nn::Linear qkv, proj;
};
TORCH_MODULE(Attention);

struct BlockImpl : torch::nn::Module {
    explicit BlockImpl(const Sizes& sizes)
        : ln_1(register_module("ln_1", torch::nn::LayerNorm(torch::nn::LayerNormOptions({sizes.width})))),
          attn(register_module("attn", Attention(sizes))),
          ln_2(register_module("ln_2", torch::nn::LayerNorm(torch::nn::LayerNormOptions({sizes.width})))),
          mlp(register_module("mlp", torch::nn::Sequential(torch::nn::Linear(sizes.width, 4 * sizes.width), torch::nn::GELU(),
                                                           torch::nn::Linear(4 * sizes.width, sizes.width)))) {}

    torch::Tensor forward(torch::Tensor x, torch::Tensor mask) {
        graphpatch::Scope scope(this, {{"x", x}, {"mask", mask}});
        x = x + attn(graphpatch::call(ln_1, x), mask);
        return scope.output(x + graphpatch::call(mlp, graphpatch::call(ln_2, x)));
    }

    torch::nn::LayerNorm ln_1;
    Attention attn;
    torch::nn::LayerNorm ln_2;
    torch::nn::Sequential mlp;
};
TORCH_MODULE(Block);

struct GptImpl : torch::nn::Module {
    explicit GptImpl(const Sizes& sizes = {})
        : wte(register_module("wte", torch::nn::Embedding(sizes.vocabulary, sizes.width))),
          wpe(register_module("wpe", torch::nn::Embedding(sizes.context, sizes.width))),
          layers(register_module("layers", torch::nn::ModuleList())),
          ln_f(register_module("ln_f", torch::nn::LayerNorm(torch::nn::LayerNormOptions({sizes.width})))),
          head(
              register_module("head", torch::nn::Linear(torch::nn::LinearOptions(sizes.width, sizes.vocabulary).bias(false)))) {
        for (int64_t i = 0; i < sizes.layers; ++i) layers->push_back(Block(sizes));
        mask = register_buffer("mask", torch::ones({sizes.context, sizes.context}, torch::kBool).triu(1));
        positions = register_buffer("positions", torch::arange(sizes.context));
    }

    torch::Tensor forward(torch::Tensor ids) {
        graphpatch::Scope scope(this, {{"ids", ids}});
        const int64_t tokens = ids.size(1);
        const auto hidden = mask.slice(0, 0, tokens).slice(1, 0, tokens);
        // Two statements: nodes are named in the order of the calls, which C++ does not fix within one expression.
        auto x = graphpatch::call(wte, ids);
        x = x + graphpatch::call(wpe, positions.slice(0, 0, tokens));
        for (const auto& layer : *layers) x = layer->as<Block>()->forward(x, hidden);
        return scope.output(graphpatch::call(head, graphpatch::call(ln_f, x)));
    }

    torch::nn::Embedding wte, wpe;
    torch::nn::ModuleList layers;
    torch::nn::LayerNorm ln_f;
    torch::nn::Linear head;
    torch::Tensor mask, positions;
};
TORCH_MODULE(Gpt);
