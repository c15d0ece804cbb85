/* Memory, limits, the environment and the arguments. */
#define _GNU_SOURCE
#include "cases.h"

#include <alloca.h>
#include <fenv.h>
#include <locale.h>
#include <malloc.h>
#include <sched.h>
#include <sys/auxv.h>
#include <sys/personality.h>
#include <sys/ipc.h>
#include <sys/shm.h>
#include <time.h>
#include <wchar.h>

CASE(arguments) {
  for (int i = 2; i < argc; ++i) {
    for (unsigned char *c = (unsigned char *)argv[i]; *c; ++c) printf("%02x", *c);
    printf(";");
  }
  return argc;
}
CASE(environment) {
  int own = 0;
  for (char **entry = environ; *entry; ++entry) own += !strncmp(*entry, "HOST_", 5);
  printf("%d %s\n", own, getenv("HOST_WIDE") ? "wide" : "plain");
  return own & 127;
}
CASE(environment_changes) {
  setenv("HOST_NEW", "1", 1);
  putenv("HOST_PUT=2");
  unsetenv("HOST_NEW");
  printf("%d %s\n", getenv("HOST_NEW") != NULL, getenv("HOST_PUT"));
  clearenv();
  printf("%d\n", environ == NULL || *environ == NULL);
  return 0;
}
CASE(environment_is_cleared_and_a_program_executed) {
  clearenv();
  execl(program, program, "environment", NULL);
  return 1;
}
CASE(address_space_limit) {
  struct rlimit limit = {1L << 29, 1L << 29};
  if (getenv("HOST_MODEL")) return 0;
  printf("%d ", setrlimit(RLIMIT_AS, &limit));
  printf("%d\n", malloc(1L << 30) == NULL);
  return 0;
}
CASE(data_limit) {
  struct rlimit limit = {1L << 26, 1L << 26};
  if (getenv("HOST_MODEL")) return 0;
  printf("%d ", setrlimit(RLIMIT_DATA, &limit));
  printf("%d\n", malloc(1L << 27) == NULL);
  return 0;
}
CASE(stack_limit) {
  struct rlimit limit = {1L << 18, 1L << 18};
  printf("%d\n", setrlimit(RLIMIT_STACK, &limit));
  fflush(stdout);
  execl(program, program, "arguments", "x", NULL);
  return 1;
}
CASE(limits) {
  for (int i = 0; i < RLIM_NLIMITS; ++i) {
    struct rlimit limit;
    if (!getrlimit((__rlimit_resource_t)i, &limit)) printf("%d %lu %lu\n", i, limit.rlim_cur, limit.rlim_max);
  }
  return 0;
}
CASE(locked_memory) {
  char *page = aligned_alloc(4096, 4096);
  printf("%d %d\n", mlock(page, 4096), munlock(page, 4096));
  return 0;
}
CASE(moves_the_break) {
  char *before = sbrk(0);
  printf("%d\n", sbrk(1 << 16) == before);
  before[100] = 1;
  return 0;
}
CASE(many_blocks) {
  void **blocks = calloc(100000, sizeof *blocks);
  unsigned long sum = 0;
  for (int i = 0; i < 100000; ++i) blocks[i] = malloc((size_t)(i % 700) + 1), memset(blocks[i], i, (size_t)(i % 700) + 1);
  for (int i = 0; i < 100000; ++i) sum += *(unsigned char *)blocks[i], free(blocks[i]);
  printf("%lu\n", sum);
  return 0;
}
CASE(no_memory) {
  errno = 0;
  printf("%d\n", malloc(~0UL >> 2) == NULL);
  tell("malloc");
  return 0;
}
CASE(broken_heap) {
  char *block = malloc(100);
  memset(block - 16, 0xff, 16);
  fflush(stdout);
  free(block);
  return 0;
}
CASE(freed_twice) {
  char *volatile block = malloc(100000);
  free(block);
  fflush(stdout);
  free(block);
  return 0;
}
CASE(large_frame) {
  char *block = alloca(4 << 20);
  memset(block, 1, 4 << 20);
  return block[100];
}
CASE(shared_memory) {
  int *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  pid_t child = fork();
  if (!child) *shared = 12, _exit(0);
  const char *how = ended(child);  // in a call, the number might be read first
  printf("%s %d\n", how, *shared);
  return 0;
}
CASE(shared_memory_of_system_v) {
  int id = shmget(IPC_PRIVATE, 4096, 0600);
  char *at = shmat(id, NULL, 0);
  shmctl(id, IPC_RMID, NULL);
  strcpy(at, "shared");
  puts(at);
  return 0;
}
CASE(own_code_in_memory) {
  unsigned char code[] = {0xb8, 42, 0, 0, 0, 0xc3};
  void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  memcpy(page, code, sizeof code);
  mprotect(page, 4096, PROT_READ | PROT_EXEC);
#ifdef __x86_64__
  return ((int (*)(void))page)();
#else
  return 42;
#endif
}
CASE(rounding) {
  printf("%d ", fegetround());
  fesetround(FE_UPWARD);
  volatile double one = 1, three = 3;
  printf("%a ", one / three);
  run_model("rounding up");
  printf("%d %d\n", fegetround(), fetestexcept(FE_DIVBYZERO | FE_INVALID | FE_OVERFLOW));
  return 0;
}
CASE(floating_point_traps) {
  feenableexcept(FE_DIVBYZERO);
  volatile double one = 1, zero = 0;
  fflush(stdout);
  return (int)(one / zero);
}
CASE(locale) {
  printf("%s\n", setlocale(LC_ALL, "C.UTF-8"));
  printf("%ls %d\n", L"ü€", wcwidth(L'€'));
  return 0;
}
CASE(locale_begins_as_c) {
  printf("%s\n", setlocale(LC_ALL, NULL));
  return 0;
}
CASE(time_zone) {
  time_t then = 1000000000;
  setenv("TZ", "XYZ-5:30", 1);
  tzset();
  printf("%s", ctime(&then));
  return 0;
}
CASE(processors) {
  cpu_set_t set;
  sched_getaffinity(0, sizeof set, &set);
  int count = CPU_COUNT(&set);
  CPU_ZERO(&set);
  CPU_SET(0, &set);
  printf("%d %d\n", count, sched_setaffinity(0, sizeof set, &set));
  return 0;
}
CASE(same_addresses) {
  if (personality(0xffffffff) & ADDR_NO_RANDOMIZE) return 5;
  personality(ADDR_NO_RANDOMIZE);
  execl(program, program, "same_addresses", NULL);
  return 1;
}
CASE(own_name) {
  printf("%s %d\n", program_invocation_short_name, getauxval(AT_SECURE) != 0);
  memset(argv[0], 'x', strlen(argv[0]));
  return 0;
}
CASE(trimmed) {
  mallopt(M_ARENA_MAX, 1);
  printf("%d\n", malloc_trim(0) >= 0);
  return 0;
}
CASE(errno_is_kept) {
  errno = 77;
  dlsym(RTLD_DEFAULT, "puts");
  printf("%d ", errno);
  void *library = dlopen("libm.so.6", RTLD_NOW);
  printf("%d %d\n", library != NULL, errno == 77 || errno == 0);
  return 0;
}
CASE(random_numbers) {
  srand(5);
  printf("%d %d %ld\n", rand(), rand(), (srandom(6), random()));
  return 0;
}
