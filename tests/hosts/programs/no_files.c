/* A library to preload. It makes one call by which libgraphpatch, its adapter or the graphpatch command handles files fail, and
 * no call of anybody else's. NO_FILE_CALL: `open`, `read`, `write`, `rename`, `mkdir` or `mmap`;  NO_FILE_AT=N: the Nth of
 * these fails; NO_FILE_ERROR: with this number of an error;  NO_FILE_FROM=1: and all that follow fail, too; NO_FILE_THEN=M: and
 * the Mth call after it, of any kind but `write`, by which the failure would be told, fails with EIO; NO_FILE_BELOW:
 * whoever opens a file below this folder does it for us, be it Python or the dynamic linker; NO_FILE_IN_COMMAND=1: in the
 * command; otherwise in the programs that it starts. At its end, a process appends the numbers of its calls, in the order
 * above, to the file that NO_FILE_COUNT names.
 *
 * Most calls go through the C library and are seen by their caller. Some are made without it, and some by the dynamic linker
 * for itself: a filter of system calls (seccomp) turns these into signals, whose handler makes them. */
#define _GNU_SOURCE
#include "ours.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <ucontext.h>
#include <unistd.h>

enum kind { OPEN, READ, WRITE, RENAME, MKDIR, MMAP, KINDS };
static const char *const names[KINDS] = {"open", "read", "write", "rename", "mkdir", "mmap"};

static atomic_long counts[KINDS];
static atomic_long since;
static atomic_int failed;
static long at, error, then;
static int ready, from, chosen = KINDS, in_command;
static const char *below;
/* The executable's code, if that is the command; and our library's. */
static struct range command, library;

static int first_object(struct dl_phdr_info *info, size_t size, void *data) {
  (void)size;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const ElfW(Phdr) *part = &info->dlpi_phdr[i];
    if (part->p_type != PT_LOAD || !(part->p_flags & PF_X)) continue;
    *(struct range *)data = (struct range){info->dlpi_addr + part->p_vaddr, info->dlpi_addr + part->p_vaddr + part->p_memsz};
  }
  return 1;
}

/* Counts a call of ours. Whether it is the one that fails. */
static int fails(enum kind kind) {
  long number = atomic_fetch_add(&counts[kind], 1) + 1;
  if ((int)kind == chosen && (number == at || (from && number > at))) {
    failed = 1;
    errno = (int)error;
    return 1;
  }
  if (!then || !failed || kind == WRITE || atomic_fetch_add(&since, 1) + 1 != then) return 0;
  errno = EIO;
  return 1;
}
static int is_path_of_ours(const char *path) {
  return below && path && (strstr(path, below) || strstr(path, "/adapter-"));
}
static int is_file_of_ours(int file) {
  char link[64], name[4096];
  if (!below || file < 0) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  long length = syscall(SYS_readlink, link, name, sizeof name - 1);
  name[length > 0 ? length : 0] = 0;
  return length > 0 && is_path_of_ours(name);
}
static int calls_for_us(void *caller) {
  return in_command ? is_in(command, (ElfW(Addr))caller) : is_ours(caller);
}
#define FAILS(kind, ours) (ready && (calls_for_us(__builtin_return_address(0)) || (ours)) && fails(kind))

#ifdef __x86_64__
static long raw(long number, const greg_t *registers) {
  register long r10 __asm__("r10") = registers[REG_R10], r8 __asm__("r8") = registers[REG_R8],
                    r9 __asm__("r9") = registers[REG_R9];
  long answer;
  __asm__ volatile(
      "syscall"
      : "=a"(answer)
      : "a"(number), "D"(registers[REG_RDI]), "S"(registers[REG_RSI]), "d"(registers[REG_RDX]), "r"(r10), "r"(r8), "r"(r9)
      : "rcx", "r11", "memory");
  return answer;
}
static int of_number(long number, const greg_t *registers, int *is_named) {
  *is_named = 0;
  switch (number) {
    case SYS_openat:
    case SYS_openat2: *is_named = is_path_of_ours((const char *)registers[REG_RSI]); return OPEN;
    case SYS_open: *is_named = is_path_of_ours((const char *)registers[REG_RDI]); return OPEN;
    case SYS_read:
    case SYS_pread64: *is_named = is_file_of_ours((int)registers[REG_RDI]); return READ;
    case SYS_mmap: *is_named = is_file_of_ours((int)registers[REG_R8]); return MMAP;
    case SYS_write: return WRITE;
    case SYS_renameat:
    case SYS_renameat2: return RENAME;
    case SYS_mkdirat: return MKDIR;
    default: return KINDS;
  }
}
static void trapped(int signal, siginfo_t *info, void *context) {
  greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
  int kept = errno, is_named;
  (void)signal;
  int kind = of_number(info->si_syscall, registers, &is_named);
  int ours = !is_in(linker, (ElfW(Addr))registers[REG_RIP]) || is_named;
  if (kind != KINDS && ours && fails(kind)) registers[REG_RAX] = -errno;
  else registers[REG_RAX] = raw(info->si_syscall, registers);
  errno = kept;
}
/* Calls whose instruction lies in the range are trapped. The range must not cross a multiple of 4 GiB. */
#define LOAD(what) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, what))
#define IP instruction_pointer
static int trap(struct range range) {
  unsigned high = (unsigned)(range.start >> 32);
  if (range.start == range.end || high != (unsigned)(range.end >> 32)) return 0;
  struct sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, IP) + 4),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, high, 0, 13),
      LOAD(IP),
      BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, (unsigned)range.start, 0, 11),
      BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, (unsigned)range.end, 10, 0),
      LOAD(nr),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 9, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_open, 8, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_read, 7, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_pread64, 6, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mmap, 5, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_write, 4, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_renameat, 3, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_renameat2, 2, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mkdirat, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
  };
  struct sock_fprog all = {sizeof filter / sizeof *filter, filter};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &all);
}
static int trap_the_rest(void) {
  struct sigaction action = {.sa_sigaction = trapped, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK};
  return sigaction(SIGSYS, &action, NULL) || trap(in_command ? command : library) || trap(linker);
}
#else
static int trap_the_rest(void) {
  return 0;
}
#endif

__attribute__((constructor)) static void begin(void) {
  const char *call = getenv("NO_FILE_CALL"), *number = getenv("NO_FILE_AT"), *code = getenv("NO_FILE_ERROR");
  int is_command = !strcmp(program_invocation_short_name, "graphpatch");
  in_command = getenv("NO_FILE_IN_COMMAND") != NULL;
  if (in_command != is_command) return;
  for (int kind = 0; call && kind < KINDS; ++kind)
    if (!strcmp(call, names[kind])) chosen = kind;
  at = number ? atol(number) : 0;
  from = getenv("NO_FILE_FROM") != NULL;
  error = code ? atol(code) : EIO;
  then = getenv("NO_FILE_THEN") ? atol(getenv("NO_FILE_THEN")) : 0;
  below = getenv("NO_FILE_BELOW");
  linker = code_of("/ld-linux");
  library = code_of("libgraphpatch.so");
  dl_iterate_phdr(first_object, &command);
  if (trap_the_rest()) fprintf(stderr, "no filter of system calls: %s\n", strerror(errno)), _exit(97);
  ready = 1;
}
__attribute__((destructor)) static void tell(void) {
  const char *name = getenv("NO_FILE_COUNT");
  int was_ready = ready;
  ready = 0;
  int file = name && was_ready ? open(name, O_WRONLY | O_CREAT | O_APPEND, 0600) : -1;
  if (file < 0) return;
  dprintf(file, "%ld %ld %ld %ld %ld %ld\n", counts[OPEN], counts[READ], counts[WRITE], counts[RENAME], counts[MKDIR],
          counts[MMAP]);
  close(file);
}

static int open_at(int folder, const char *path, int flags, va_list more) {
  mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;
  return (int)syscall(SYS_openat, folder, path, flags, mode);
}
#define OPENS(name, folder, ...)                                                                                               \
  int name(__VA_ARGS__, const char *path, int flags, ...) {                                                                    \
    va_list more;                                                                                                              \
    if (FAILS(OPEN, is_path_of_ours(path))) return -1;                                                                         \
    va_start(more, flags);                                                                                                     \
    int file = open_at(folder, path, flags, more);                                                                             \
    va_end(more);                                                                                                              \
    return file;                                                                                                               \
  }
OPENS(openat, folder, int folder)
OPENS(openat64, folder, int folder)
#undef OPENS
#define OPENS(name)                                                                                                            \
  int name(const char *path, int flags, ...) {                                                                                 \
    va_list more;                                                                                                              \
    if (FAILS(OPEN, is_path_of_ours(path))) return -1;                                                                         \
    va_start(more, flags);                                                                                                     \
    int file = open_at(AT_FDCWD, path, flags, more);                                                                           \
    va_end(more);                                                                                                              \
    return file;                                                                                                               \
  }
OPENS(open)
OPENS(open64)

ssize_t read(int file, void *to, size_t size) {
  if (FAILS(READ, is_file_of_ours(file))) return -1;
  return syscall(SYS_read, file, to, size);
}
ssize_t readv(int file, const struct iovec *to, int count) {
  if (FAILS(READ, is_file_of_ours(file))) return -1;
  return syscall(SYS_readv, file, to, count);
}
ssize_t pread64(int file, void *to, size_t size, off_t place) {
  if (FAILS(READ, is_file_of_ours(file))) return -1;
  return syscall(SYS_pread64, file, to, size, place);
}
ssize_t write(int file, const void *of, size_t size) {
  if (FAILS(WRITE, 0)) return -1;
  return syscall(SYS_write, file, of, size);
}
ssize_t writev(int file, const struct iovec *of, int count) {
  if (FAILS(WRITE, 0)) return -1;
  return syscall(SYS_writev, file, of, count);
}
int rename(const char *old, const char *name) {
  if (FAILS(RENAME, 0)) return -1;
  return (int)syscall(SYS_renameat2, AT_FDCWD, old, AT_FDCWD, name, 0);
}
int renameat(int from_folder, const char *old, int folder, const char *name) {
  if (FAILS(RENAME, 0)) return -1;
  return (int)syscall(SYS_renameat2, from_folder, old, folder, name, 0);
}
int mkdir(const char *path, mode_t mode) {
  if (FAILS(MKDIR, 0)) return -1;
  return (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
}
int mkdirat(int folder, const char *path, mode_t mode) {
  if (FAILS(MKDIR, 0)) return -1;
  return (int)syscall(SYS_mkdirat, folder, path, mode);
}
static void *map(void *place, size_t size, int protection, int flags, int file, off_t offset) {
  return (void *)syscall(SYS_mmap, place, size, protection, flags, file, offset);
}
void *mmap(void *place, size_t size, int protection, int flags, int file, off_t offset) {
  return FAILS(MMAP, is_file_of_ours(file)) ? MAP_FAILED : map(place, size, protection, flags, file, offset);
}
void *mmap64(void *place, size_t size, int protection, int flags, int file, off_t offset) {
  return FAILS(MMAP, is_file_of_ours(file)) ? MAP_FAILED : map(place, size, protection, flags, file, offset);
}
