// A card that is none: CUDA's driver for two devices whose memory is the process's own and whose kernels are the
// repository's, run by the CPU. Work waits in the queue of its stream until somebody waits for the stream, as late as a card
// could do it, so that what is given back or written too early shows. Tests load it in the place of libcuda.so.1; what they
// need to tell it and to know of it is here.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace card {

using Work = std::function<void()>;

// What libtorch calls the stream `id` of a device; 0 is the default stream of each.
inline void* native(int device, int64_t id) {
  return id == 0 ? nullptr : reinterpret_cast<void*>(0x1000 * static_cast<intptr_t>(device + 1) + static_cast<intptr_t>(id));
}

// Work of libtorch's own in the stream.
void add(void* stream, Work work);
// Waits until the stream has nothing left to do.
void finish(void* stream);
// From here on work for the stream goes into a graph, and is not done; and no longer.
void capture(void* stream);
void end_capture(void* stream);
bool is_captured(void* stream);
// Puts what was captured into the stream, once more.
void replay(void* stream);
// The stream belongs to a context that is not its device's primary one.
void take_away(void* stream);
// Somebody uses the device.
void use(int device);

// What was asked of the driver since the last time: "load", "alloc 16", "free", "wait for all", "launch gp_add_dense" ….
std::vector<std::string> calls();
void note(const std::string& call);

} // namespace card
