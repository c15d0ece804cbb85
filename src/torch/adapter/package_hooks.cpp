// Functions that stand in the slots of a compiled model. Each calls the function that stood there before, with all arguments as
// they came, and then shows what that function has computed. They are functions of C++, through which exceptions pass.
#include "package.h"

#include <array>
#include <mutex>
#include <unordered_map>

namespace graphpatch::packages {

thread_local Running* running = nullptr;

namespace {

// What the caller has put onto the stack: at most so many words are handed on. It lies in memory, so the two structs of the two
// calls have the same place among their arguments.
struct Stack {
  uint64_t words[kStack];
};
using Function = uint64_t (*)(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, double, double, double, double,
                              double, double, double, double, Stack);

constexpr size_t kMost = 1024;
// The functions behind the hooks. An entry never changes after it was set.
static std::array<void*, kMost> originals;
static void* original_of_data = nullptr;

template <size_t I>
uint64_t pass(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f, double s, double t, double u, double v,
              double w, double x, double y, double z, Stack stack) {
  const auto original = reinterpret_cast<Function>(originals[I]);
  const uint64_t result = original(a, b, c, d, e, f, s, t, u, v, w, x, y, z, stack);
  if (running) {
    const uint64_t registers[] = {a, b, c, d, e, f};
    running->called(I, result, {registers, stack.words});
  }
  return result;
}

int32_t pass_data(at::Tensor* tensor, void** data) {
  const int32_t result = reinterpret_cast<int32_t (*)(at::Tensor*, void**)>(original_of_data)(tensor, data);
  if (running && result == 0)
    running->asked(*data, *tensor);
  return result;
}

template <size_t... I>
void* hook_at(size_t index, std::index_sequence<I...>) {
  static void* const all[] = {reinterpret_cast<void*>(&pass<I>)...};
  return all[index];
}

void* hook_at(size_t index) {
  return hook_at(index, std::make_index_sequence<kMost>());
}

static std::mutex hooks_mutex;
static size_t used = 0;

// The hook in front of this function; kNoHook if there are too many.
uint16_t hook_for(void* original) {
  static auto& known = *new std::unordered_map<void*, uint16_t>;
  const auto found = known.find(original);
  if (found != known.end())
    return found->second;
  if (used == kMost)
    return kNoHook;
  originals[used] = original;
  known.emplace(original, static_cast<uint16_t>(used));
  return static_cast<uint16_t>(used++);
}

bool can_pass(const GpCall& call) {
  return call.floats <= kFloats && call.integers <= kRegisters + kStack;
}

} // namespace

// Hooks the calls of data_ptr, by which data is matched with tensors.
static bool hook_data(const std::vector<Slot>& slots, const void* address, std::vector<Slot>& replaced) {
  for (const Slot& slot : slots) {
    if (slot.symbol != "aoti_torch_get_data_ptr")
      continue;
    if (!original_of_data)
      original_of_data = function_for(address, slot.symbol);
    if (!original_of_data || !replace_word(slot.word, reinterpret_cast<void*>(&pass_data)))
      return false;
    replaced.push_back(slot);
  }
  return true;
}

std::shared_ptr<const Inside> hook(const GpPackage* package, const void* address, std::string& why) {
  const Lock lock(hooks_mutex);
  const std::vector<Slot> slots = slots_at(address);
  auto inside = std::make_shared<Inside>();
  inside->package = package;
  std::unordered_map<std::string, uint16_t> hooks;
  const auto hook_slots = [&](const GpCall& call) {
    const std::string symbol = to_string(call.symbol);
    const auto known = hooks.find(symbol);
    if (known != hooks.end())
      return known->second;
    uint16_t number = kNoHook;
    void* original = can_pass(call) ? function_for(address, symbol) : nullptr;
    for (const Slot& slot : slots) {
      if (!original || slot.symbol != symbol)
        continue;
      number = hook_for(original);
      if (number == kNoHook || !replace_word(slot.word, hook_at(number))) {
        number = kNoHook;
        break;
      }
      inside->slots.push_back(slot);
    }
    return hooks[symbol] = number;
  };
  size_t seen = 0;
  for (size_t i = 0; i < package->n_calls; ++i) {
    inside->hooks.push_back(hook_slots(package->calls[i]));
    seen += inside->hooks.back() != kNoHook;
  }
  if (!hook_data(slots, address, inside->slots) || !seen) {
    why = "its library calls its kernels directly";
    return nullptr;
  }
  return inside;
}

bool is_hooked(const Inside& inside) {
  const Slot& slot = inside.slots.front();
  void* now = __atomic_load_n(slot.word, __ATOMIC_ACQUIRE);
  for (uint16_t number : inside.hooks)
    if (number != kNoHook && hook_at(number) == now)
      return true;
  return false;
}

} // namespace graphpatch::packages
