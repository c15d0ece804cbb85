// CUDA values: their memory and stream in the seam's words, and copies of them that are kept. No header of CUDA's.
#pragma once

#include "adapter.h"

namespace graphpatch {

// Plain strided memory of a CUDA device, with a dtype that the core knows.
bool is_plain_cuda(const at::Tensor& tensor);

// Whether more patches follow at the node: then a launch may wait for them.
void expect_more(bool more);
// Launches what waits; before libtorch reads or writes a patched value. May throw what the core has to say.
void flush_device();
// One target on a plain CUDA tensor; answers as the core's apply.
uint32_t write_on_device(const GpTarget& target, const at::Tensor& tensor);

// Launches what waits at the end of its life, also when an exception ends it.
class FlushDevice {
public:
  FlushDevice() = default;
  FlushDevice(const FlushDevice&) = delete;
  FlushDevice& operator=(const FlushDevice&) = delete;
  ~FlushDevice();
};

// Keeps a copy that is made on the device, in the order of its stream.
void keep_on_device(const GpTarget& target, const at::Tensor& tensor);

GpStr kept_read(void* kept, void* bytes, size_t size);
void* kept_lend(void* kept);
void kept_free(void* kept);

} // namespace graphpatch
