// The one function of libc10_cuda.so that the adapter calls: the native stream behind libtorch's. See driver.h.
#include "driver.h"

#include <c10/core/Stream.h>

struct CUstream_st;

namespace c10::cuda {

class CUDAStream {
public:
  CUstream_st* stream() const;

private:
  Stream stream_;
};

CUstream_st* CUDAStream::stream() const {
  return static_cast<CUstream_st*>(card::native(stream_.device_index(), stream_.id()));
}

} // namespace c10::cuda
