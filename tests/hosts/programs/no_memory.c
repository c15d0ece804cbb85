/* A library to preload. It makes allocations of libgraphpatch and of its adapter fail, and no others.
 *   NO_MEMORY_AT=N: the Nth one alone;  NO_MEMORY_FROM=N: the Nth one and all that follow.
 * It writes the number of their allocations to the file that NO_MEMORY_COUNT names. */
#define _GNU_SOURCE
#include "ours.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static atomic_long count;
static long at, from;
static int ready;

__attribute__((constructor)) static void begin(void) {
  const char *one = getenv("NO_MEMORY_AT"), *all = getenv("NO_MEMORY_FROM");
  at = one ? atol(one) : 0;
  from = all ? atol(all) : 0;
  linker = code_of("/ld-linux");
  ready = 1;
}
static int fails(void *caller) {
  if (!ready || !is_ours(caller)) return 0;
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
