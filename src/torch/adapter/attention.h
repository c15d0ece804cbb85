// The inside of attention: what an operation computes on the way to its result, computed beside it.
#pragma once

#include "operation.h"

namespace graphpatch {

// The inside of one call of scaled_dot_product_attention. It is computed by the math path, the sequence of operations that
// defines what the fused operation computes.
class Attention {
public:
  // Before the call: keeps the operands, which the call takes from the stack. `wanted` is what value_begin has answered.
  Attention(const GpToken& token, uint32_t wanted, const Dispatched& call, const OpInfo& info);
  // After the call: shows the values inside. If a patch has changed one, puts what follows from it in the result's place, else
  // leaves the result as it is.
  void show(c10::IValue& result);
  // After the patches of the result: shows what it has become.
  void finish(const c10::IValue& result);

private:
  struct Unseen; // thrown where the inside cannot be computed

  void check_operands() const;
  void compute(c10::IValue& result);
  at::Tensor mask_for(const at::Tensor& scores, const at::Tensor& query, const at::Tensor& key,
                      std::optional<c10::ScalarType> type) const;
  at::Tensor scores_of(const at::Tensor& query, const at::Tensor& key) const;
  at::Tensor repeated(const at::Tensor& tensor, const at::Tensor& query) const;
  at::Tensor shown(uint32_t which, at::Tensor value, const std::vector<at::Tensor>& made_from);
  template <class Body>
  at::Tensor computed(const Body& body) const;
  void refuse(const std::string& why);

  const GpToken& token_;
  const bool patched_; // a patch may change a value inside
  at::Tensor query_, key_, value_, mask_;
  double dropout_ = 0;
  bool causal_ = false;
  bool grouped_ = false; // enable_gqa
  std::optional<double> scale_;
  uint32_t next_ = 0; // the values before this one have been shown
  bool changed_ = false;
  GpToken output_{}; // the token of the scope's output
  uint32_t wanted_ = 0; // what is wanted of it
};

} // namespace graphpatch
