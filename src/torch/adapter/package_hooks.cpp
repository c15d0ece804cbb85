// Functions that stand in the slots of a compiled model. Each calls the function that stood there before, with all arguments as
// they came, and then shows what that function has computed.
#include "package.h"

#include <array>
#include <mutex>
#include <unordered_map>

#define GRAPHPATCH_MOST_HOOKS 1024
#define GRAPHPATCH_HOOK_SIZE 32

#ifdef __x86_64__
// A hook pushes its number, and calls the one function that does the work: a thousand functions of C++ would cost a first build
// six seconds and the adapter half a megabyte. Exceptions of the model's pass through, since the call frames are described.
#define GRAPHPATCH_TEXT(number) #number
#define GRAPHPATCH_NUMBER(number) GRAPHPATCH_TEXT(number)
__asm__(".pushsection .text\n"
        ".balign " GRAPHPATCH_NUMBER(
            GRAPHPATCH_HOOK_SIZE) "\n"
                                  ".type graphpatch_hooks, @function\n"
                                  "graphpatch_hooks:\n"
                                  ".set graphpatch_number, 0\n"
                                  ".rept " GRAPHPATCH_NUMBER(
                                      GRAPHPATCH_MOST_HOOKS) "\n"
                                                             ".cfi_startproc\n"
                                                             "endbr64\n"
                                                             "pushq $graphpatch_number\n"
                                                             ".cfi_adjust_cfa_offset 8\n"
                                                             "call graphpatch_hooked\n"
                                                             "addq $8, %rsp\n"
                                                             ".cfi_adjust_cfa_offset -8\n"
                                                             "ret\n"
                                                             ".cfi_endproc\n"
                                                             ".balign " GRAPHPATCH_NUMBER(
                                                                 GRAPHPATCH_HOOK_SIZE) "\n"
                                                                                       ".set graphpatch_number, "
                                                                                       "graphpatch_number + 1\n"
                                                                                       ".endr\n"
                                                                                       ".size graphpatch_hooks, . - "
                                                                                       "graphpatch_hooks\n"
                                                                                       ".popsection\n");
extern "C" __attribute__((visibility("hidden"))) char graphpatch_hooks[];
#else
#define graphpatch_hooks static_cast<char*>(nullptr) // the slots are those of x86-64: none is ever found
#endif

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

constexpr size_t kMost = GRAPHPATCH_MOST_HOOKS;
// The functions behind the hooks. An entry never changes after it was set.
static std::array<void*, kMost> originals;
static void* original_of_data = nullptr;

int32_t pass_data(at::Tensor* tensor, void** data) {
  const int32_t result = reinterpret_cast<int32_t (*)(at::Tensor*, void**)>(original_of_data)(tensor, data);
  if (running && result == 0)
    running->asked(*data, *tensor);
  return result;
}

void* hook_at(size_t index) {
  return graphpatch_hooks + index * GRAPHPATCH_HOOK_SIZE;
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

// What every hook calls. The six registers for integers are used up, so what follows lies on the stack, as it is: the number
// that the hook has pushed, the address to which the hook returns, and what the model has put there.
extern "C" __attribute__((used, visibility("hidden"))) uint64_t graphpatch_hooked(uint64_t a, uint64_t b, uint64_t c,
                                                                                  uint64_t d, uint64_t e, uint64_t f, double s,
                                                                                  double t, double u, double v, double w,
                                                                                  double x, double y, double z, uint64_t number,
                                                                                  uint64_t /*back*/, Stack stack) {
  const auto original = reinterpret_cast<Function>(originals[number]);
  const uint64_t result = original(a, b, c, d, e, f, s, t, u, v, w, x, y, z, stack);
  if (running) {
    const uint64_t registers[] = {a, b, c, d, e, f};
    running->called(static_cast<uint16_t>(number), result, {registers, stack.words});
  }
  return result;
}

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
