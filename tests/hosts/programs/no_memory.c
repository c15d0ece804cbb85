/* A library to preload. It makes allocations of libgraphpatch and of its adapter fail, and no others.
 *   NO_MEMORY_AT=N: the Nth one alone;  NO_MEMORY_FROM=N: the Nth one and all that follow.
 * It writes the number of their allocations to the file that NO_MEMORY_COUNT names. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static atomic_long count;
static long at, from;
static int ready;
static __thread int looking;

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
/* The dynamic linker's own code. dl_iterate_phdr must not be called for its allocations: they are made while it changes its
 * lists. */
static ElfW(Addr) linker_start, linker_end;
static int is_linker(struct dl_phdr_info *info, size_t size, void *nothing) {
  (void)size, (void)nothing;
  for (int i = 0; strstr(info->dlpi_name, "/ld-linux") && i < info->dlpi_phnum; ++i) {
    const ElfW(Phdr) *part = &info->dlpi_phdr[i];
    if (part->p_type != PT_LOAD || !(part->p_flags & PF_X)) continue;
    linker_start = info->dlpi_addr + part->p_vaddr;
    linker_end = linker_start + part->p_memsz;
  }
  return 0;
}
__attribute__((constructor)) static void begin(void) {
  const char *one = getenv("NO_MEMORY_AT"), *all = getenv("NO_MEMORY_FROM");
  at = one ? atol(one) : 0;
  from = all ? atol(all) : 0;
  dl_iterate_phdr(is_linker, NULL);
  ready = 1;
}
static int fails(void *caller) {
  struct search search = {(ElfW(Addr))caller, 0};
  if (!ready || looking || (search.address >= linker_start && search.address < linker_end)) return 0;
  looking = 1;
  dl_iterate_phdr(holds, &search);
  looking = 0;
  if (!search.is_ours) return 0;
  long number = atomic_fetch_add(&count, 1) + 1;
  return number == at || (from > 0 && number >= from);
}
__attribute__((destructor)) static void tell(void) {
  const char *name = getenv("NO_MEMORY_COUNT");
  int file = name && count ? open(name, O_WRONLY | O_CREAT | O_TRUNC, 0600) : -1;
  if (file >= 0) dprintf(file, "%ld\n", (long)count), close(file);
}

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t),
    *__libc_memalign(size_t, size_t);

void *malloc(size_t size) {
  if (fails(__builtin_return_address(0))) return errno = ENOMEM, NULL;
  return __libc_malloc(size);
}
void *calloc(size_t n, size_t size) {
  if (fails(__builtin_return_address(0))) return errno = ENOMEM, NULL;
  return __libc_calloc(n, size);
}
void *realloc(void *block, size_t size) {
  if (fails(__builtin_return_address(0))) return errno = ENOMEM, NULL;
  return __libc_realloc(block, size);
}
int posix_memalign(void **out, size_t alignment, size_t size) {
  if (fails(__builtin_return_address(0))) return ENOMEM;
  return (*out = __libc_memalign(alignment, size)) ? 0 : ENOMEM;
}
/* operator new(size_t), by which the adapter allocates. */
void *_Znwm(size_t size) {
  static void *(*real)(size_t);
  static void (*bad_alloc)(void);
  if (!real) real = (void *(*)(size_t))dlsym(RTLD_NEXT, "_Znwm");
  if (fails(__builtin_return_address(0))) {
    if (!bad_alloc) bad_alloc = (void (*)(void))dlsym(RTLD_DEFAULT, "_ZSt17__throw_bad_allocv");
    bad_alloc();
  }
  return real(size);
}
