/* How a process ends. */
#define _GNU_SOURCE
#include "cases.h"

#include <assert.h>
#include <setjmp.h>

static sigjmp_buf back;

static void first(void) {
  puts("first");
}
static void second(void) {
  puts("second");
}
static void more(void) {
  puts("more");
  atexit(first);
}
static void again(void) {
  puts("again");
  exit(21);
}
static void with_code(int code, void *text) {
  printf("%s %d\n", (char *)text, code);
}
static void jump(int number) {
  siglongjmp(back, number);
}
static void say_and_end(int number) {
  char text[] = "caught\n";
  if (write(1, text, sizeof text - 1) > 0) _exit(number);
}
static void exit_in_handler(int number) {
  exit(number + 40);
}
static void *end_all(void *code) {
  exit((int)(long)code);
}
static void *late(void *nothing) {
  usleep(20000);
  puts("the last thread");
  return nothing;
}

__attribute__((constructor)) static void constructed(void) {
  setvbuf(stdout, NULL, _IOFBF, 1 << 16);
}
__attribute__((destructor)) static void destroyed(void) {
  if (getenv("HOST_DESTRUCTOR")) puts("destroyed");
}

CASE(returns) {
  return 5;
}
CASE(returns_large_number) {
  return 256 + 7;
}
CASE(exits) {
  exit(6);
}
CASE(exits_with_handlers) {
  atexit(first);
  atexit(second);
  return 1;
}
CASE(handlers_add_handlers) {
  atexit(more);
  exit(3);
}
CASE(exits_again_in_a_handler) {
  atexit(first);
  atexit(again);
  exit(3);
}
CASE(on_exit_gets_the_code) {
  on_exit(with_code, "code");
  exit(11);
}
CASE(destructors) {
  putenv("HOST_DESTRUCTOR=1");
  atexit(first);
  return 0;
}
CASE(loses_its_buffer) {
  puts("never seen");
  _exit(7);
}
CASE(ends_as_in_c99) {
  _Exit(8);
}
CASE(ends_quickly) {
  at_quick_exit(first);
  at_quick_exit(second);
  atexit(more);
  puts("lost, unless a handler flushes");
  quick_exit(10);
}
CASE(aborts) {
  abort();
}
CASE(aborts_with_a_handler) {
  signal(SIGABRT, say_and_end);
  abort();
}
CASE(survives_abort) {
  signal(SIGABRT, jump);
  if (!sigsetjmp(back, 1)) abort();
  puts("back");
  return 12;
}
CASE(aborts_while_blocked) {
  sigset_t set;
  sigfillset(&set);
  sigprocmask(SIG_BLOCK, &set, NULL);
  abort();
}
CASE(ignores_abort) {
  signal(SIGABRT, SIG_IGN);
  abort();
}
CASE(fails_an_assertion) {
  assert(argc == 77);
  return 0;
}
CASE(segmentation_fault) {
  return *(volatile int *)8;
}
CASE(trap) {
  __builtin_trap();
}
CASE(bus_error) {
  int file = open("short", O_RDWR | O_CREAT, 0600);
  char *map = mmap(NULL, 4096, PROT_READ, MAP_SHARED, file, 0);
  return *(volatile char *)map;
}
CASE(division_by_zero) {
  volatile int zero = 0;
  return 1 / zero;
}
CASE(killed) {
  return raise(SIGKILL);
}
CASE(terminated) {
  return raise(SIGTERM);
}
CASE(realtime_signal) {
  return raise(SIGRTMIN + 3);
}
CASE(alarm_ends_it) {
  struct itimerval soon = {{0, 0}, {0, 20000}};
  setitimer(ITIMER_REAL, &soon, NULL);
  for (;;) pause();
}
CASE(cpu_limit_signal) {
  return raise(SIGXCPU);
}
CASE(broken_pipe) {
  int ends[2];
  if (pipe(ends)) return 1;
  close(ends[0]);
  return (int)write(ends[1], "x", 1);
}
CASE(broken_pipe_is_an_error) {
  int ends[2];
  signal(SIGPIPE, SIG_IGN);
  if (pipe(ends)) return 1;
  close(ends[0]);
  printf("%zd\n", write(ends[1], "x", 1));
  tell("write");
  return 0;
}
CASE(file_too_large) {
  struct rlimit limit = {100, 100};
  setrlimit(RLIMIT_FSIZE, &limit);
  char bytes[200] = {0};
  int file = open("large", O_RDWR | O_CREAT, 0600);
  if (write(file, bytes, sizeof bytes) == 100) return (int)write(file, bytes, sizeof bytes);
  return 3;
}
CASE(file_too_large_is_an_error) {
  struct rlimit limit = {100, 100};
  setrlimit(RLIMIT_FSIZE, &limit);
  signal(SIGXFSZ, SIG_IGN);
  char bytes[200] = {0};
  int file = open("large", O_RDWR | O_CREAT, 0600);
  long first_part = write(file, bytes, sizeof bytes);
  long second_part = write(file, bytes, sizeof bytes);
  fprintf(stderr, "%ld %ld %s\n", first_part, second_part, strerror(errno));
  return 0;
}
CASE(exits_in_a_handler) {
  signal(SIGUSR1, exit_in_handler);
  atexit(first);
  return raise(SIGUSR1);
}
CASE(exits_in_a_thread) {
  pthread_t thread;
  pthread_create(&thread, NULL, end_all, (void *)15L);
  for (;;) pause();
}
CASE(leaves_main_before_its_thread) {
  pthread_t thread;
  atexit(first);
  pthread_create(&thread, NULL, late, NULL);
  pthread_exit(NULL);
}
CASE(ends_by_the_system_call) {
  puts("lost");
  return (int)syscall(SYS_exit_group, 16);
}
CASE(main_thread_alone_ends) {
  fflush(stdout);
  return (int)syscall(SYS_exit, 17);
}
CASE(closed_stdout) {
  puts("nowhere");
  close(1);
  return 0;
}
CASE(full_device) {
  int full = open("/dev/full", O_WRONLY);
  dup2(full, 1);
  puts("no room");
  return fflush(stdout) ? 4 : 0;
}
CASE(stack_overflow) {
  volatile char page[1 << 16];
  page[0] = (char)argc;
  return case_stack_overflow(argc + page[0], argv) + page[0];
}
