// A stand-in for a card: CUDA's driver for two devices whose memory belongs to the process, and whose kernels are those of this
// repository, run by the CPU. Work stays in the queue of its stream until something waits for the stream, which is as late as
// a card may do it: memory that is freed or written too early then shows. Tests load it in the place of libcuda.so.1, and
// control and observe it by the functions below.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace card {

using Work = std::function<void()>;

// The native handle of libtorch's stream `id` on a device. Id 0 is the default stream.
inline void* native(int device, int64_t id) {
  return id == 0 ? nullptr : reinterpret_cast<void*>(0x1000 * static_cast<intptr_t>(device + 1) + static_cast<intptr_t>(id));
}

// Puts work of libtorch's own into the stream.
void add(void* stream, Work work);
// Waits until the stream has nothing left to do.
void finish(void* stream);
// Between capture() and end_capture(), work for the stream goes into a graph and is not done.
void capture(void* stream);
void end_capture(void* stream);
bool is_captured(void* stream);
// Puts the captured work into the stream once.
void replay(void* stream);
// Makes the stream belong to another context than its device's primary one.
void take_away(void* stream);
// Marks the device as used, as the first work on a card does.
void use(int device);

// What was asked of the driver since the last time: "load", "alloc 16", "free", "wait for all", "launch gp_add_dense" ….
std::vector<std::string> calls();
void note(const std::string& call);

} // namespace card
