/* Programs that give up rights, limits or descriptors, or that start and interrupt themselves by rare system calls. */
#define _GNU_SOURCE
#include "cases.h"

#include <sched.h>
#include <sys/prctl.h>
#include <sys/uio.h>

/* A model's result must be the same each time. */
static void run_often(int times) {
  for (int i = 0; i < times; ++i) run_model(NULL);
  run_model("often");
}

static long clone3(unsigned long long flags) {
  /* struct clone_args of linux/sched.h, in its first version of 64 bytes. */
  unsigned long long arguments[8] = {flags, 0, 0, 0, SIGCHLD, 0, 0, 0};
  return syscall(435, arguments, sizeof arguments);
}
CASE(clone3_without_fork_handlers) {
  fflush(stdout);
  long child = clone3(0);
  if (!child) {
    run_model("child");
    fflush(stdout);
    _exit(7);
  }
  printf("%s\n", ended((pid_t)child));
  return 0;
}
CASE(clone3_and_execute) {
  fflush(stdout);
  long child = clone3(0);
  if (!child) {
    execl("/bin/echo", "echo", "executed", NULL);
    _exit(99);
  }
  printf("%s\n", ended((pid_t)child));
  return 0;
}
CASE(execute_at) {
  char *arguments[] = {(char *)program, "arguments_of_rights", "one", NULL};
  fflush(stdout);
  syscall(SYS_execveat, AT_FDCWD, program, arguments, environ, 0);
  return 98;
}
CASE(arguments_of_rights) {
  printf("%d %s\n", argc, argv[2]);
  return 3;
}
CASE(no_further_descriptors) {
  struct rlimit limit = {3, 3};
  printf("%d ", setrlimit(RLIMIT_NOFILE, &limit));
  printf("%d\n", open("/dev/null", O_RDONLY));
  run_often(5);
  return 4;
}
CASE(few_descriptors_for_the_next_program) {
  struct rlimit limit = {5, 5};
  setrlimit(RLIMIT_NOFILE, &limit);
  fflush(stdout);
  execl(program, program, "arguments_of_rights", "few", NULL);
  return 98;
}
CASE(all_descriptors_closed_at_once) {
  run_often(2);
  fflush(stdout);
  syscall(436, 0U, ~0U, 0U);
  run_often(3);
  return 5;
}
CASE(descriptors_are_replaced) {
  run_often(2);
  int own = open("own", O_RDWR | O_CREAT, 0600);
  for (int i = 3; i < 64; ++i)
    if (i != own) dup2(own, i);
  run_often(5);
  dprintf(own, "mine\n");
  return 6;
}
CASE(no_new_privileges) {
  printf("%d\n", prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
  run_often(3);
  printf("%d\n", system("exit 3") >> 8);
  return 0;
}
CASE(not_dumpable) {
  printf("%d\n", prctl(PR_SET_DUMPABLE, 0, 0, 0, 0));
  run_often(3);
  pid_t child = fork();
  if (!child) _exit(9);
  printf("%s\n", ended(child));
  return 0;
}
CASE(own_namespaces) {
  int made = unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWIPC);
  printf("%s\n", made ? strerror(errno) : "made");
  run_often(3);
  return 0;
}
CASE(other_user_while_models_run) {
  run_often(2);
  printf("%d %d\n", setresgid(65534, 65534, 65534), setresuid(65534, 65534, 65534));
  run_often(3);
  printf("%d\n", open("refused", O_WRONLY | O_CREAT, 0600) >= 0);
  return 8;
}
CASE(no_more_address_space) {
  run_often(2);
  long pages = 0;
  FILE *file = fopen("/proc/self/statm", "r");
  if (!file || fscanf(file, "%ld", &pages) != 1) return 97;
  fclose(file);
  rlim_t most = (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE) + (16 << 20);
  struct rlimit limit = {most, most};
  printf("%d %d\n", setrlimit(RLIMIT_AS, &limit), malloc(1UL << 30) == NULL);
  run_often(50);
  return 0;
}
CASE(no_more_processes) {
  struct rlimit limit = {0, 0};
  printf("%d\n", setrlimit(RLIMIT_NPROC, &limit));
  run_often(3);
  return 0;
}
CASE(everything_is_locked) {
  printf("%d\n", mlockall(MCL_CURRENT | MCL_FUTURE));
  run_often(3);
  return 0;
}

static volatile sig_atomic_t rang;
static void fork_in_it(int number) {
  int kept = errno;
  pid_t child = fork();
  if (!child) _exit(0);
  if (child > 0) waitpid(child, NULL, 0);
  rang += number == SIGALRM;
  errno = kept;
}
static void run_in_it(int number) {
  run_model(NULL);
  rang += number == SIGALRM;
}
static void interrupt_with(void (*handler)(int), int flags) {
  struct sigaction action = {.sa_handler = handler, .sa_flags = flags | SA_RESTART};
  sigaction(SIGALRM, &action, NULL);
}
CASE(forks_in_a_handler_while_models_run) {
  interrupt_with(fork_in_it, 0);
  run_model(NULL);
  // Each timer rings once. One that goes on would ring again before the handler returns on a busy machine, for ever.
  for (int i = 0; rang < 5; ++i) {
    struct itimerval soon = {{0, 0}, {0, 10 + 10 * (i % 16)}};
    setitimer(ITIMER_REAL, &soon, NULL);
    run_model(NULL);
  }
  struct itimerval never = {{0, 0}, {0, 0}};
  setitimer(ITIMER_REAL, &never, NULL);
  run_model("after");
  return 0;
}
CASE(runs_a_model_on_a_stack_for_signals) {
  stack_t stack = {.ss_size = 4 << 20};
  stack.ss_sp = malloc(stack.ss_size);
  sigaltstack(&stack, NULL);
  interrupt_with(run_in_it, SA_ONSTACK);
  for (int i = 0; i < 5; ++i) raise(SIGALRM);
  printf("%d\n", (int)rang);
  return 0;
}
static void model_in_the_child(void) {
  run_model("in the handler");
  fflush(stdout);
}
CASE(fork_handler_runs_a_model) {
  pthread_atfork(NULL, NULL, model_in_the_child);
  fflush(stdout);
  pid_t child = fork();
  if (!child) _exit(11);
  printf("%s\n", ended(child));
  return 0;
}
CASE(environment_is_an_array_of_its_own) {
  static char *own[] = {"HOST_OWN=1", NULL};
  environ = own;
  fflush(stdout);
  execve(program, (char *[]){(char *)program, "environment_of_rights", NULL}, environ);
  return 98;
}
CASE(environment_of_rights) {
  for (char **entry = environ; *entry; ++entry)
    if (!strncmp(*entry, "HOST_OWN", 8)) puts(*entry);
  return 12;
}
