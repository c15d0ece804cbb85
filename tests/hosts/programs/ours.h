/* Whose code an address belongs to: that of libgraphpatch and its adapter, or of the graphpatch command, is ours. */
#ifndef OURS_H
#define OURS_H

#include <link.h>
#include <string.h>

struct range {
  ElfW(Addr) start, end;
};

struct search {
  ElfW(Addr) address;
  int is_ours;
};
static int holds(struct dl_phdr_info *info, size_t size, void *data) {
  struct search *search = data;
  (void)size;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const ElfW(Phdr) *part = &info->dlpi_phdr[i];
    ElfW(Addr) start = info->dlpi_addr + part->p_vaddr;
    if (part->p_type != PT_LOAD || search->address < start || search->address >= start + part->p_memsz) continue;
    search->is_ours = strstr(info->dlpi_name, "libgraphpatch.so") || strstr(info->dlpi_name, "/adapter-");
    return 1;
  }
  return 0;
}

struct named {
  const char *name;
  struct range range;
};
static int is_named(struct dl_phdr_info *info, size_t size, void *data) {
  struct named *named = data;
  (void)size;
  for (int i = 0; strstr(info->dlpi_name, named->name) && i < info->dlpi_phnum; ++i) {
    const ElfW(Phdr) *part = &info->dlpi_phdr[i];
    if (part->p_type != PT_LOAD || !(part->p_flags & PF_X)) continue;
    named->range.start = info->dlpi_addr + part->p_vaddr;
    named->range.end = named->range.start + part->p_memsz;
  }
  return 0;
}
/* Where the code of the loaded file of this name lies; empty if there is none. */
static struct range code_of(const char *name) {
  struct named named = {name, {0, 0}};
  dl_iterate_phdr(is_named, &named);
  return named.range;
}
static int is_in(struct range range, ElfW(Addr) address) {
  return address >= range.start && address < range.end;
}

/* The dynamic linker's own code. dl_iterate_phdr must not be called for what it does itself: it may be changing its lists. */
static struct range linker;
static __thread int looking;

static int is_ours(void *caller) {
  struct search search = {(ElfW(Addr))caller, 0};
  if (looking || is_in(linker, search.address)) return 0;
  looking = 1;
  dl_iterate_phdr(holds, &search);
  looking = 0;
  return search.is_ours;
}
#endif
