/* Signals: the state in which a process begins, handlers, and ways to leave a handler. */
#define _GNU_SOURCE
#include "cases.h"

#include <setjmp.h>
#include <sys/signalfd.h>
#include <ucontext.h>

static sigjmp_buf back;
static volatile sig_atomic_t seen;
static char *page;

static void count(int number) {
  seen += number;
}
static void jump(int number) {
  siglongjmp(back, number);
}
static void unprotect(int number, siginfo_t *info, void *context) {
  (void)number, (void)context;
  if (info->si_addr == page) mprotect(page, 4096, PROT_READ | PROT_WRITE);
  else _exit(77);
}
static void with_value(int number, siginfo_t *info, void *context) {
  (void)number, (void)context;
  seen = info->si_value.sival_int;
}
static void caught(int number, void (*handler)(int), int flags) {
  struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
  sigaction(number, &action, NULL);
}
static void soon(void) {
  struct itimerval time = {{0, 0}, {0, 5000}};
  setitimer(ITIMER_REAL, &time, NULL);
}

CASE(what_it_begins_with) {
  sigset_t mask;
  sigprocmask(SIG_BLOCK, NULL, &mask);
  for (int i = 1; i < 65; ++i) {
    struct sigaction action;
    if (sigaction(i, NULL, &action)) continue;
    printf("%d %s %x %d\n", i,
           action.sa_handler == SIG_DFL   ? "default"
           : action.sa_handler == SIG_IGN ? "ignored"
                                          : "own",
           action.sa_flags, sigismember(&mask, i));
  }
  stack_t stack;
  sigaltstack(NULL, &stack);
  struct itimerval timer;
  getitimer(ITIMER_REAL, &timer);
  printf("%d %ld\n", stack.ss_flags, timer.it_value.tv_sec);
  return 0;
}
CASE(handed_on_by_exec) {
  sigset_t mask;
  sigemptyset(&mask);
  sigaddset(&mask, SIGUSR2);
  sigaddset(&mask, SIGALRM);
  sigaddset(&mask, SIGXFSZ);
  sigprocmask(SIG_BLOCK, &mask, NULL);
  signal(SIGHUP, SIG_IGN);
  signal(SIGPIPE, SIG_IGN);
  signal(SIGUSR1, count);
  execl(program, program, "what_it_begins_with", NULL);
  return 1;
}
CASE(handlers_run) {
  caught(SIGUSR1, count, 0);
  for (int i = 0; i < 10; ++i) raise(SIGUSR1);
  return seen;
}
CASE(handler_once) {
  caught(SIGUSR1, count, SA_RESETHAND);
  raise(SIGUSR1);
  printf("%d\n", seen);
  fflush(stdout);
  raise(SIGUSR1);
  return 0;
}
CASE(interrupted_read) {
  int ends[2];
  char byte;
  if (pipe(ends)) return 1;
  caught(SIGALRM, count, 0);
  soon();
  printf("%zd\n", read(ends[0], &byte, 1));
  tell("read");
  return 0;
}
CASE(restarted_read) {
  int ends[2];
  char byte = 0;
  if (pipe(ends)) return 1;
  caught(SIGALRM, count, SA_RESTART);
  pid_t child = fork();
  if (!child) {
    usleep(30000);
    _exit(write(ends[1], "y", 1) == 1 ? 0 : 1);
  }
  soon();
  printf("%zd ", read(ends[0], &byte, 1));
  printf("%c %s\n", byte, ended(child));
  return 0;
}
CASE(jumps_out_of_a_handler) {
  for (volatile int i = 0; i < 20; ++i) {
    caught(SIGSEGV, jump, SA_NODEFER);
    if (!sigsetjmp(back, 1)) *(volatile int *)16 = 1;
    ++seen;
  }
  return seen;
}
CASE(survives_division_by_zero) {
  volatile int zero = 0;
  caught(SIGFPE, jump, 0);
  if (!sigsetjmp(back, 1)) return 1 / zero;
  puts("divided");
  return 0;
}
CASE(repairs_its_memory) {
  struct sigaction action = {.sa_sigaction = unprotect, .sa_flags = SA_SIGINFO};
  page = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  sigaction(SIGSEGV, &action, NULL);
  page[0] = 5;
  return page[0];
}
static int deeper(int n) {
  volatile char block[4096];
  block[0] = (char)n;
  return deeper(n + 1) + block[0];
}
CASE(survives_stack_overflow) {
  stack_t stack = {.ss_sp = malloc(1 << 16), .ss_size = 1 << 16};
  sigaltstack(&stack, NULL);
  caught(SIGSEGV, jump, SA_ONSTACK);
  if (!sigsetjmp(back, 1)) return deeper(0);
  puts("survived");
  return 0;
}
CASE(jumps_out_by_a_timer) {
  for (volatile int i = 0; i < 20; ++i) {
    caught(SIGALRM, jump, 0);
    if (!sigsetjmp(back, 1)) {
      soon();
      for (;;) {
      }
    }
    ++seen;
  }
  return seen;
}
CASE(waits_for_a_signal) {
  sigset_t set;
  int number = 0;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  sigprocmask(SIG_BLOCK, &set, NULL);
  raise(SIGUSR1);
  sigwait(&set, &number);
  return number;
}
CASE(signal_descriptor) {
  sigset_t set;
  struct signalfd_siginfo info;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigprocmask(SIG_BLOCK, &set, NULL);
  int file = signalfd(-1, &set, 0);
  raise(SIGTERM);
  printf("%zd ", read(file, &info, sizeof info));
  return (int)info.ssi_signo;
}
CASE(queued_values) {
  struct sigaction action = {.sa_sigaction = with_value, .sa_flags = SA_SIGINFO};
  sigaction(SIGRTMIN, &action, NULL);
  sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = 33});
  return seen;
}
CASE(profiling_timer) {
  struct itimerval timer = {{0, 1000}, {0, 1000}};
  caught(SIGPROF, count, SA_RESTART);
  setitimer(ITIMER_PROF, &timer, NULL);
  while (seen < 3 * SIGPROF) {
  }
  timer = (struct itimerval){{0, 0}, {0, 0}};
  setitimer(ITIMER_PROF, &timer, NULL);
  return 0;
}
CASE(own_timer_is_kept) {
  struct itimerval timer = {{100, 0}, {100, 0}};
  setitimer(ITIMER_REAL, &timer, NULL);
  run_model("with a timer");
  getitimer(ITIMER_REAL, &timer);
  printf("%d\n", timer.it_value.tv_sec >= 90 && timer.it_interval.tv_sec == 100);
  return 0;
}
CASE(suspends) {
  sigset_t none, some;
  sigemptyset(&none);
  sigemptyset(&some);
  sigaddset(&some, SIGUSR1);
  sigprocmask(SIG_BLOCK, &some, NULL);
  caught(SIGUSR1, count, 0);
  raise(SIGUSR1);
  printf("%d\n", sigsuspend(&none));
  return seen;
}
static void *sets_its_mask(void *nothing) {
  sigset_t mask;
  pthread_sigmask(SIG_BLOCK, NULL, &mask);
  seen = sigismember(&mask, SIGUSR2);
  return nothing;
}
CASE(threads_inherit_the_mask) {
  sigset_t mask;
  pthread_t thread;
  sigemptyset(&mask);
  sigaddset(&mask, SIGUSR2);
  pthread_sigmask(SIG_BLOCK, &mask, NULL);
  pthread_create(&thread, NULL, sets_its_mask, NULL);
  pthread_join(thread, NULL);
  return seen;
}
CASE(children_are_not_waited_for) {
  struct sigaction action = {.sa_handler = SIG_IGN, .sa_flags = SA_NOCLDWAIT};
  sigaction(SIGCHLD, &action, NULL);
  pid_t child = fork();
  if (!child) _exit(3);
  puts(ended(child));
  return 0;
}
static void model_in_handler(int number) {
  (void)number;
  run_model("in a handler");
}
CASE(handler_runs_a_model) {
  caught(SIGUSR1, model_in_handler, 0);
  raise(SIGUSR1);
  return 0;
}
