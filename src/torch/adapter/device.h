// CUDA values: their memory and stream as structs of the seam, and copies of them that are kept. Uses no header of CUDA's.
#pragma once

#include "adapter.h"

namespace graphpatch {

// Plain strided memory of a CUDA device, with a dtype that the core knows.
bool is_plain_cuda(const at::Tensor& tensor);

// Says whether more patches follow at the node. If so, a launch may wait for them.
void expect_more(bool more);
// Launches the patches that wait. Called before libtorch reads or writes a patched value. May throw an error of the core's.
void flush_device();
// Applies one target to a plain CUDA tensor. Answers as the core's `apply`.
uint32_t write_on_device(const GpTarget& target, const at::Tensor& tensor);

// Launches the patches that wait when it is destroyed, also if an exception destroys it.
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
