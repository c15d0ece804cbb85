// Stands in for CUDA where a C++ compiler reads the kernels: a launch is a loop over blocks and threads. No kernel uses
// shared memory or waits for another thread, so their order does not matter.
#pragma once

#include <cstdint>

#define DEVICE inline
#define KERNEL extern "C" void

struct Index3 {
  unsigned int x;
};
static thread_local Index3 blockIdx, gridDim, threadIdx, blockDim;

template <class Kernel>
void launch(unsigned int grid, unsigned int block, Kernel kernel) {
  gridDim.x = grid;
  blockDim.x = block;
  for (blockIdx.x = 0; blockIdx.x < grid; ++blockIdx.x)
    for (threadIdx.x = 0; threadIdx.x < block; ++threadIdx.x)
      kernel();
}
