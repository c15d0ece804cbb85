// The slots of a loaded library: words through which it calls functions of other libraries, or its own exported ones.
#include "package.h"

#include <cstddef>
#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <sys/mman.h>
#include <unistd.h>

namespace graphpatch::packages {

uint64_t objects_removed() {
  uint64_t removed = 0;
  const ForksWait forks_wait;
  dl_iterate_phdr(
      [](dl_phdr_info* object, size_t size, void* removed) {
        if (size >= offsetof(dl_phdr_info, dlpi_subs) + sizeof(object->dlpi_subs))
          *static_cast<uint64_t*>(removed) = object->dlpi_subs;
        return 1;
      },
      &removed);
  return removed;
}

// Whether the dynamic linker made these bytes read-only after it had written them.
static bool is_sealed(uintptr_t address) {
  struct Search {
    uintptr_t address;
    bool found;
  } search{address, false};
  const ForksWait forks_wait;
  dl_iterate_phdr(
      [](dl_phdr_info* object, size_t, void* data) {
        auto& search = *static_cast<Search*>(data);
        for (size_t i = 0; i < object->dlpi_phnum; ++i) {
          const auto& part = object->dlpi_phdr[i];
          const uintptr_t begin = object->dlpi_addr + part.p_vaddr;
          if (part.p_type == PT_GNU_RELRO && begin <= search.address && search.address < begin + part.p_memsz)
            search.found = true;
        }
        return search.found ? 1 : 0;
      },
      &search);
  return search.found;
}

bool replace_word(void** word, void* with) {
  const auto address = reinterpret_cast<uintptr_t>(word);
  const uintptr_t size = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  void* page = reinterpret_cast<void*>(address & ~(size - 1));
  const bool sealed = is_sealed(address);
  if (sealed && mprotect(page, size, PROT_READ | PROT_WRITE) != 0)
    return false;
  // Other threads may be reading it.
  __atomic_store_n(word, with, __ATOMIC_RELEASE);
  if (sealed)
    mprotect(page, size, PROT_READ);
  return true;
}

// The library that the address lies in. The map stays as long as the library is loaded.
static const link_map* library_at(const void* address) {
  Dl_info info{};
  void* map = nullptr;
  const ForksWait forks_wait;
  const bool found = dladdr1(address, &info, &map, RTLD_DL_LINKMAP) != 0;
  return found ? static_cast<const link_map*>(map) : nullptr;
}

// What the dynamic section says of relocations and symbols.
struct Dynamic {
  const ElfW(Sym) * symbols = nullptr;
  const char* names = nullptr;
  const ElfW(Rela) * lazy = nullptr;
  const ElfW(Rela) * others = nullptr;
  size_t lazy_bytes = 0, other_bytes = 0;
};

static Dynamic dynamic_of(const link_map& map) {
  Dynamic found;
  for (const ElfW(Dyn)* entry = map.l_ld; entry && entry->d_tag != DT_NULL; ++entry) {
    const auto pointer = entry->d_un.d_ptr;
    switch (entry->d_tag) {
      case DT_SYMTAB:
        found.symbols = reinterpret_cast<const ElfW(Sym)*>(pointer);
        break;
      case DT_STRTAB:
        found.names = reinterpret_cast<const char*>(pointer);
        break;
      case DT_JMPREL:
        found.lazy = reinterpret_cast<const ElfW(Rela)*>(pointer);
        break;
      case DT_PLTRELSZ:
        found.lazy_bytes = entry->d_un.d_val;
        break;
      case DT_RELA:
        found.others = reinterpret_cast<const ElfW(Rela)*>(pointer);
        break;
      case DT_RELASZ:
        found.other_bytes = entry->d_un.d_val;
        break;
      default:
        break;
    }
  }
  return found;
}

std::vector<Slot> slots_at(const void* address) {
  std::vector<Slot> slots;
  const link_map* map = library_at(address);
  if (!map)
    return slots;
  const Dynamic dynamic = dynamic_of(*map);
  if (!dynamic.symbols || !dynamic.names)
    return slots;
  const auto read = [&](const ElfW(Rela) * first, size_t bytes) {
    for (size_t i = 0; first && i < bytes / sizeof(*first); ++i) {
      const auto kind = ELF64_R_TYPE(first[i].r_info);
      if (kind != R_X86_64_JUMP_SLOT && kind != R_X86_64_GLOB_DAT)
        continue;
      const auto& symbol = dynamic.symbols[ELF64_R_SYM(first[i].r_info)];
      slots.push_back({dynamic.names + symbol.st_name, reinterpret_cast<void**>(map->l_addr + first[i].r_offset)});
    }
  };
  read(dynamic.lazy, dynamic.lazy_bytes);
  read(dynamic.others, dynamic.other_bytes);
  return slots;
}

void* function_for(const void* address, const std::string& symbol) {
  const link_map* map = library_at(address);
  if (!map)
    return nullptr;
  const ForksWait forks_wait;
  void* library = dlopen(map->l_name, RTLD_NOLOAD | RTLD_LAZY);
  void* found = library ? dlsym(library, symbol.c_str()) : nullptr;
  if (!found)
    found = dlsym(RTLD_DEFAULT, symbol.c_str());
  if (library)
    dlclose(library);
  return found;
}

} // namespace graphpatch::packages
