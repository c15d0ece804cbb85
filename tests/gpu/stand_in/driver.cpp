// See driver.h. The functions are those of CUDA's driver that src/cuda/real.rs calls, by CUDA's names and numbers.
#define GRAPHPATCH_EMULATE
#include "../../../kernels/graphpatch.cu"

#include "driver.h"

#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <utility>

namespace {

using Task = card::Work;

enum Answer { kSuccess = 0, kInvalid = 1, kNotFound = 500 };

constexpr int kDevices = 2;

struct Event {
  void* stream = nullptr;
  bool done = true;
};

struct State {
  std::recursive_mutex mutex;
  std::map<void*, std::deque<Task>> queues;
  std::map<void*, std::vector<Task>> graphs;
  std::set<void*> captured, elsewhere;
  std::set<int> used;
  std::map<uint64_t, size_t> sizes;
  std::vector<std::string> calls;
  int64_t streams = 100;
};

State& state() {
  static State& all = *new State();
  return all;
}

using Guard = std::lock_guard<std::recursive_mutex>;

thread_local std::vector<void*> contexts;

void* primary(int device) {
  return reinterpret_cast<void*>(static_cast<intptr_t>(0x100 + device));
}

void* current() {
  return contexts.empty() ? nullptr : contexts.back();
}

// A kernel of the repository: its name, and how its arguments are copied when it is launched.
struct Kernel {
  const char* name;
  Task (*bind)(void** arguments);
};

template <void (*kernel)(Work)>
Task bind_work(void** arguments) {
  const Work work = *static_cast<const Work*>(arguments[0]);
  return [work] { kernel(work); };
}

const Kernel kKernels[] = {
    {"gp_zero_dense", bind_work<gp_zero_dense>},
    {"gp_zero_strided", bind_work<gp_zero_strided>},
    {"gp_add_dense", bind_work<gp_add_dense>},
    {"gp_add_strided", bind_work<gp_add_strided>},
    {"gp_replace_dense", bind_work<gp_replace_dense>},
    {"gp_replace_strided", bind_work<gp_replace_strided>},
    {"gp_any",
     [](void** arguments) -> Task {
       const Work work = *static_cast<const Work*>(arguments[0]);
       const Picks picks = *static_cast<const Picks*>(arguments[1]);
       return [work, picks] { gp_any(work, picks); };
     }},
    {"gp_batch",
     [](void** arguments) -> Task {
       const Batch batch = *static_cast<const Batch*>(arguments[0]);
       return [batch] { gp_batch(batch); };
     }},
};

// Overwrites memory that was given back. It is never used again, so that a late read is seen.
void give_back(uint64_t address) {
  std::memset(reinterpret_cast<void*>(address), 0xdd, state().sizes[address]);
}

} // namespace

void card::add(void* stream, Task work) {
  const Guard guard(state().mutex);
  if (state().captured.count(stream))
    state().graphs[stream].push_back(std::move(work));
  else
    state().queues[stream].push_back(std::move(work));
}

void card::finish(void* stream) {
  const Guard guard(state().mutex);
  auto& queue = state().queues[stream];
  while (!queue.empty()) {
    const Task work = std::move(queue.front());
    queue.pop_front();
    work();
  }
}

void card::capture(void* stream) {
  const Guard guard(state().mutex);
  state().graphs[stream].clear();
  state().captured.insert(stream);
}

void card::end_capture(void* stream) {
  const Guard guard(state().mutex);
  state().captured.erase(stream);
}

bool card::is_captured(void* stream) {
  const Guard guard(state().mutex);
  return state().captured.count(stream) != 0;
}

void card::replay(void* stream) {
  const Guard guard(state().mutex);
  auto& queue = state().queues[stream];
  for (const Task& work : state().graphs[stream])
    queue.push_back(work);
}

void card::take_away(void* stream) {
  const Guard guard(state().mutex);
  state().elsewhere.insert(stream);
}

void card::use(int device) {
  const Guard guard(state().mutex);
  state().used.insert(device);
}

std::vector<std::string> card::calls() {
  const Guard guard(state().mutex);
  return std::exchange(state().calls, {});
}

void card::note(const std::string& call) {
  const Guard guard(state().mutex);
  state().calls.push_back(call);
}

extern "C" {

int cuInit(unsigned) {
  return kSuccess;
}

int cuGetErrorString(int, const char** text) {
  *text = "the stand-in of a card says no";
  return kSuccess;
}

int cuDriverGetVersion(int* version) {
  *version = 13000;
  return kSuccess;
}

int cuDeviceGetCount(int* count) {
  *count = kDevices;
  return kSuccess;
}

int cuDeviceGet(int* device, int number) {
  *device = number;
  return number < kDevices ? kSuccess : kInvalid;
}

int cuDeviceGetName(char* name, int size, int) {
  std::strncpy(name, "A card that is none", static_cast<size_t>(size));
  return kSuccess;
}

int cuDeviceGetAttribute(int* value, int attribute, int) {
  const std::map<int, int> known = {{75, 9}, {76, 0}, {16, 2}, {115, 1}};
  const auto found = known.find(attribute);
  if (found == known.end())
    return kInvalid;
  *value = found->second;
  return kSuccess;
}

int cuDevicePrimaryCtxGetState(int device, unsigned* flags, int* active) {
  const Guard guard(state().mutex);
  *flags = 0;
  *active = state().used.count(device) != 0;
  return kSuccess;
}

int cuDevicePrimaryCtxRetain(void** context, int device) {
  *context = primary(device);
  return kSuccess;
}

int cuCtxGetCurrent(void** context) {
  *context = current();
  return kSuccess;
}

int cuCtxPushCurrent_v2(void* context) {
  contexts.push_back(context);
  return kSuccess;
}

int cuCtxPopCurrent_v2(void** context) {
  *context = current();
  contexts.pop_back();
  return kSuccess;
}

int cuStreamGetCtx(void* stream, void** context) {
  const Guard guard(state().mutex);
  const int device = static_cast<int>(reinterpret_cast<intptr_t>(stream) / 0x1000) - 1;
  *context = state().elsewhere.count(stream) ? reinterpret_cast<void*>(intptr_t{0xf00}) : primary(device);
  return kSuccess;
}

int cuModuleLoadData(void** module, const void* image) {
  card::note("load");
  const bool known = std::strstr(static_cast<const char*>(image), ".visible .entry gp_batch(");
  *module = &state();
  return known ? kSuccess : kInvalid;
}

int cuModuleGetFunction(void** function, void*, const char* name) {
  for (const Kernel& kernel : kKernels)
    if (std::strcmp(kernel.name, name) == 0) {
      *function = const_cast<Kernel*>(&kernel);
      return kSuccess;
    }
  return kNotFound;
}

int cuStreamCreate(void** stream, unsigned) {
  const Guard guard(state().mutex);
  const int device = static_cast<int>(reinterpret_cast<intptr_t>(current())) - 0x100;
  *stream = card::native(device, ++state().streams);
  return kSuccess;
}

int cuStreamIsCapturing(void* stream, int* status) {
  *status = card::is_captured(stream);
  return kSuccess;
}

int cuThreadExchangeStreamCaptureMode(int* mode) {
  static thread_local int now = 0;
  std::swap(*mode, now);
  return kSuccess;
}

int cuMemAlloc_v2(uint64_t* address, size_t size) {
  const Guard guard(state().mutex);
  void* memory = nullptr;
  if (posix_memalign(&memory, 256, size))
    return kInvalid;
  *address = reinterpret_cast<uint64_t>(memory);
  state().sizes[*address] = size;
  card::note("alloc " + std::to_string(size));
  return kSuccess;
}

int cuMemAllocAsync(uint64_t* address, size_t size, void*) {
  return cuMemAlloc_v2(address, size);
}

int cuMemFree_v2(uint64_t address) {
  const Guard guard(state().mutex);
  card::note("wait for all");
  for (auto& queue : state().queues)
    card::finish(queue.first);
  give_back(address);
  return kSuccess;
}

int cuMemFreeAsync(uint64_t address, void* stream) {
  card::note("free");
  card::add(stream, [address] { give_back(address); });
  // An idle card frees the memory at once, so do that here: nothing may still need it.
  card::finish(stream);
  return kSuccess;
}

int cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t size, void* stream) {
  const char* bytes = static_cast<const char*>(from);
  card::add(stream, [to, copy = std::string(bytes, bytes + size)] {
    std::memcpy(reinterpret_cast<void*>(to), copy.data(), copy.size());
  });
  return kSuccess;
}

int cuStreamSynchronize(void* stream) {
  card::finish(stream);
  return kSuccess;
}

int cuEventCreate(void** event, unsigned) {
  *event = new Event();
  return kSuccess;
}

int cuEventDestroy_v2(void*) {
  return kSuccess; // not freed, because work in a queue may still wait for it
}

int cuEventRecord(void* event, void* stream) {
  auto* mark = static_cast<Event*>(event);
  mark->stream = stream;
  mark->done = false;
  card::add(stream, [mark] { mark->done = true; });
  return kSuccess;
}

int cuStreamWaitEvent(void* stream, void* event, unsigned) {
  auto* mark = static_cast<Event*>(event);
  card::add(stream, [mark] {
    if (!mark->done)
      card::finish(mark->stream);
  });
  return kSuccess;
}

int cuLaunchKernel(void* function, unsigned grid, unsigned, unsigned, unsigned block, unsigned, unsigned, unsigned,
                   void* stream, void** arguments, void**) {
  const auto& kernel = *static_cast<const Kernel*>(function);
  card::note(std::string("launch ") + kernel.name);
  card::add(stream, [grid, block, work = kernel.bind(arguments)] { launch(grid, block, work); });
  return kSuccess;
}

} // extern "C"
