/* Child processes of all kinds, and what they inherit. */
#define _GNU_SOURCE
#include "cases.h"

#include <sched.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>

static int executed(const char *what) {
  char *arguments[] = {(char *)program, "told", (char *)what, NULL};
  return execv(program, arguments);
}

/* The case that other cases execute by execv. */
CASE(told) {
  printf("executed %s with %d\n", argc > 2 ? argv[2] : "nothing", argc);
  return 4;
}

static int tree(int depth) {
  if (!depth) return 1;
  int sum = 1;
  for (int i = 0; i < 2; ++i) {
    pid_t child = fork();
    if (!child) _exit(tree(depth - 1));
    int status = 0;
    waitpid(child, &status, 0);
    sum += WEXITSTATUS(status);
  }
  return sum;
}
CASE(fork_tree) {
  return tree(4);
}
CASE(fork_and_exit) {
  pid_t child = fork();
  if (!child) {
    run_model("child");
    exit(3);
  }
  printf("%s\n", ended(child));
  return 0;
}
CASE(many_children) {
  pid_t children[40];
  for (int i = 0; i < 40; ++i)
    if (!(children[i] = fork())) _exit(i);
  for (int i = 0; i < 40; ++i) printf("%s ", ended(children[i]));
  return 0;
}
CASE(fork_and_abort) {
  pid_t child = fork();
  if (!child) abort();
  printf("%s\n", ended(child));
  return 0;
}
CASE(fork_and_execute) {
  pid_t child = fork();
  if (!child) _exit(executed("fork"));
  printf("%s\n", ended(child));
  return 0;
}
CASE(vfork_and_execute) {
  pid_t child = vfork();
  if (!child) _exit(executed("vfork"));
  printf("%s\n", ended(child));
  return 0;
}
CASE(vfork_and_end) {
  volatile int shared = 0;
  pid_t child = vfork();
  if (!child) {
    shared = 5;
    _exit(6);
  }
  printf("%s %d\n", ended(child), shared);
  return 0;
}
CASE(fork_by_the_system_call) {
  pid_t child = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
  if (!child) _exit(8);
  printf("%s\n", ended(child));
  return 0;
}
static int cloned(void *code) {
  return *(int *)code;
}
CASE(clone_with_a_stack) {
  int code = 9;
  char *stack = malloc(1 << 16);
  pid_t child = clone(cloned, stack + (1 << 16), SIGCHLD, &code);
  printf("%s\n", ended(child));
  return 0;
}
CASE(clone_that_shares_memory) {
  int code = 10;
  char *stack = malloc(1 << 16);
  pid_t child = clone(cloned, stack + (1 << 16), CLONE_VM | CLONE_VFORK | SIGCHLD, &code);
  printf("%s\n", ended(child));
  return 0;
}
CASE(spawn) {
  char *arguments[] = {(char *)program, "told", "spawn", NULL};
  pid_t child;
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 1, "spawned.txt", O_WRONLY | O_CREAT, 0644);
  printf("%d ", posix_spawn(&child, program, &actions, NULL, arguments, environ));
  printf("%s\n", ended(child));
  return 0;
}
CASE(spawn_of_nothing) {
  char *arguments[] = {"nothing", NULL};
  pid_t child;
  printf("%s\n", strerror(posix_spawnp(&child, "no-such-program", NULL, NULL, arguments, environ)));
  return 0;
}
CASE(shell_command) {
  return system("echo in the shell; exit 8") >> 8;
}
CASE(command_pipe) {
  char line[64] = "";
  FILE *pipe = popen("echo from a pipe; exit 3", "r");
  if (!fgets(line, sizeof line, pipe)) return 1;
  printf("%s%d\n", line, pclose(pipe) >> 8);
  return 0;
}
CASE(execute) {
  return executed("exec");
}
CASE(execute_without_environment) {
  char *arguments[] = {(char *)program, "told", "execve", NULL}, *none[] = {NULL};
  return execve(program, arguments, none);
}
CASE(execute_by_descriptor) {
  char *arguments[] = {(char *)program, "told", "fexecve", NULL};
  return fexecve(open(program, O_RDONLY | O_CLOEXEC), arguments, environ);
}
CASE(execute_by_search) {
  execlp("no-such-program", "x", NULL);
  tell("execlp");
  execl("/", "x", NULL);
  tell("execl");
  execvp("", (char *[]){"x", NULL});
  tell("execvp");
  fflush(stdout);
  execlp("echo", "echo", "found", NULL);
  return 1;
}
CASE(execute_a_script) {
  FILE *script = fopen("script", "w");
  fputs("echo no interpreter line\nexit 9\n", script);
  fchmod(fileno(script), 0755);
  fclose(script);
  execl("./script", "script", NULL);
  tell("execl");
  fflush(stdout);
  execlp("./script", "script", NULL);
  return 1;
}
CASE(execute_too_much) {
  char *large = malloc(1 << 22);
  memset(large, 'x', (1 << 22) - 1);
  large[(1 << 22) - 1] = 0;
  execl(program, program, "told", large, NULL);
  tell("execl");
  return 0;
}
CASE(execute_in_a_thread) {
  pthread_t thread;
  pthread_create(&thread, NULL, (void *(*)(void *))executed, "a thread");
  for (;;) pause();
}
CASE(orphan) {
  int ends[2];
  char byte = 0;
  if (pipe(ends)) return 1;
  pid_t child = fork();
  if (!child) {
    if (!fork()) {
      while (getppid() == 0) usleep(100);
      if (write(ends[1], "x", 1) == 1) _exit(0);
    }
    _exit(2);
  }
  printf("%s ", ended(child));
  if (read(ends[0], &byte, 1) == 1) printf("%c\n", byte);
  return 0;
}
CASE(becomes_a_daemon) {
  FILE *file = fopen("daemon.txt", "w");
  int ends[2];
  char byte;
  if (pipe(ends)) return 1;
  pid_t child = fork();
  if (!child) {
    if (daemon(1, 0)) _exit(1);
    fprintf(file, "%d %d\n", getsid(0) == getpid(), (int)write(1, "x", 1));
    fflush(file);
    _exit(0);
  }
  close(ends[1]);
  printf("%s\n", ended(child));
  return read(ends[0], &byte, 1) ? 1 : 0;
}
CASE(own_session) {
  pid_t child = fork();
  if (!child) _exit(setsid() == getpid() && getpgrp() == getpid() ? 0 : 1);
  printf("%s\n", ended(child));
  return 0;
}
CASE(child_is_stopped_and_continued) {
  pid_t child = fork();
  int status = 0;
  if (!child) {
    raise(SIGSTOP);
    _exit(5);
  }
  waitpid(child, &status, WUNTRACED);
  printf("stopped %d\n", WIFSTOPPED(status));
  kill(child, SIGCONT);
  printf("%s\n", ended(child));
  return 0;
}
CASE(child_is_traced) {
  pid_t child = fork();
  int status = 0;
  if (!child) {
    ptrace(PTRACE_TRACEME, 0, NULL, NULL);
    raise(SIGUSR1);
    _exit(5);
  }
  waitpid(child, &status, 0);
  printf("signal %d\n", WIFSTOPPED(status) ? WSTOPSIG(status) : -1);
  ptrace(PTRACE_CONT, child, NULL, NULL);
  printf("%s\n", ended(child));
  return 0;
}
static void order_a(void) {
  puts("prepare");
}
static void order_b(void) {
  puts("parent");
}
static void order_c(void) {
  puts("child");
}
CASE(fork_handlers) {
  pthread_atfork(order_a, order_b, order_c);
  fflush(stdout);
  pid_t child = fork();
  if (!child) exit(0);
  printf("%s\n", ended(child));
  return 0;
}
static volatile sig_atomic_t ends_seen;
static void child_ended(int number) {
  (void)number;
  while (waitpid(-1, NULL, WNOHANG) > 0) ++ends_seen;
}
CASE(children_are_reaped_in_a_handler) {
  signal(SIGCHLD, child_ended);
  for (int i = 0; i < 10; ++i)
    if (!fork()) _exit(0);
  while (ends_seen < 10) usleep(500);
  printf("%d\n", (int)ends_seen);
  return 0;
}
CASE(fork_under_memory_limit) {
  struct rlimit limit;
  getrlimit(RLIMIT_NPROC, &limit);
  limit.rlim_cur = 1 << 16;
  printf("%d\n", setrlimit(RLIMIT_NPROC, &limit));
  pid_t child = fork();
  if (!child) _exit(1);
  printf("%s\n", ended(child));
  return 0;
}
CASE(name_and_priority) {
  char name[32] = "";
  prctl(PR_SET_NAME, "renamed");
  prctl(PR_GET_NAME, name);
  errno = 0;
  printf("%s %d %d\n", name, nice(3), getpriority(PRIO_PROCESS, 0));
  return 0;
}
CASE(another_user) {
  if (geteuid() == 0 && (setgid(65534) || setuid(65534))) return 1;
  printf("%d %d\n", setuid(0), geteuid() == 0);
  return 0;
}
CASE(another_root) {
  mkdir("jail", 0755);
  if (chroot("jail") || chdir("/")) tell("chroot");
  FILE *file = fopen("/inside", "w");
  printf("%d %d\n", file != NULL, access("/proc", F_OK));
  return 0;
}
