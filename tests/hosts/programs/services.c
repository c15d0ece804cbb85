/* Programs as an operations team runs them: daemons, supervisors, servers that give up rights and reopen their logs. */
#define _GNU_SOURCE
#include "cases.h"

#include <grp.h>
#include <sched.h>
#include <spawn.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>

enum { NOBODY = 65534 };

static void run_often(int times) {
  for (int i = 0; i < times; ++i) run_model(NULL);
  run_model("often");
  fflush(stdout);
}
static void log_to(const char *name) {
  int file = open(name, O_WRONLY | O_CREAT | O_APPEND, 0640);
  dup2(file, 1);
  dup2(file, 2);
  if (file > 2) close(file);
}
/* As a program of this name again, from its beginning. */
static int again(const char *name) {
  fflush(stdout);
  execl(program, program, name, NULL);
  tell("execl");
  return 98;
}
CASE(once_more) {
  run_often(2);
  return 21;
}

/* The first process adopts the daemon, and so learns how it ends. */
static int adopted(void) {
  int status = 0;
  wait(&status);
  printf("%d %d\n", WIFEXITED(status), WEXITSTATUS(status));
  return 0;
}
CASE(daemon_that_closes_everything) {
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  fflush(stdout);
  pid_t child = fork();
  if (!child) {
    setsid();
    if (fork()) _exit(0);
    syscall(SYS_close_range, 0U, ~0U, 0U);
    open("/dev/null", O_RDWR);
    log_to("daemon.log");
    umask(027);
    run_often(3);
    fprintf(stderr, "a line in the log\n");
    exit(22);
  }
  printf("%s\n", ended(child));
  return adopted();
}
CASE(daemon_without_any_descriptor) {
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  fflush(stdout);
  pid_t child = fork();
  if (!child) {
    setsid();
    if (fork()) _exit(0);
    syscall(SYS_close_range, 0U, ~0U, 0U);
    run_model(NULL);
    /* The next program finds three free numbers where its standard streams should be. */
    execl(program, program, "once_more", NULL);
    _exit(98);
  }
  printf("%s\n", ended(child));
  return adopted();
}

static void *serves_for_ever(void *served) {
  for (;;) {
    run_model(NULL);
    __atomic_add_fetch((int *)served, 1, __ATOMIC_SEQ_CST);
  }
}
/* A worker whose other thread runs models when it crashes. */
static void worker(int number) {
  static int served;
  pthread_t thread;
  struct rlimit none = {0, 0};
  setrlimit(RLIMIT_CORE, &none);
  run_model(NULL);
  pthread_create(&thread, NULL, serves_for_ever, &served);
  while (__atomic_load_n(&served, __ATOMIC_SEQ_CST) < 3) usleep(100);
  if (number == 0) *(volatile int *)8 = 1;
  if (number == 1) abort();
  if (number == 2) kill(getpid(), SIGKILL);
  if (number == 3) syscall(SYS_exit_group, 23);
  _exit(24);
}
CASE(supervisor_of_workers_that_crash) {
  fflush(stdout);
  for (int i = 0; i < 5; ++i) {
    pid_t child = fork();
    if (!child) worker(i);
    printf("worker %d: %s\n", i, ended(child));
    fflush(stdout);
  }
  run_often(2);
  return 0;
}
CASE(worker_program) {
  worker(atoi(getenv("HOST_WORKER")));
  return 98;
}
CASE(supervisor_of_programs_that_crash) {
  char *arguments[] = {(char *)program, "worker_program", NULL}, number[8];
  fflush(stdout);
  for (int i = 0; i < 5; ++i) {
    pid_t child;
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_t actions;
    sigset_t all;
    sprintf(number, "%d", i);
    setenv("HOST_WORKER", number, 1);
    sigfillset(&all);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addclosefrom_np(&actions, 3);
    posix_spawn(&child, program, &actions, &attributes, arguments, environ);
    printf("worker %d: %s\n", i, ended(child));
    fflush(stdout);
  }
  run_often(2);
  return 0;
}

/* All rights are given up, in the order in which servers do it. */
static void become_nobody(void) {
  printf("%d ", setgroups(0, NULL));
  printf("%d ", setresgid(NOBODY, NOBODY, NOBODY));
  printf("%d ", setresuid(NOBODY, NOBODY, NOBODY));
  printf("%d ", prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
  printf("%d\n", prctl(PR_SET_DUMPABLE, 0, 0, 0, 0));
}
CASE(server_in_a_jail) {
  run_often(2);
  mkdir("jail", 0755);
  printf("%d ", chroot("jail"));
  printf("%d\n", chdir("/"));
  become_nobody();
  run_often(3);
  pid_t child = fork();
  if (!child) {
    run_model("child");
    fflush(stdout);
    _exit(25);
  }
  printf("%s\n", ended(child));
  printf("%d\n", open("refused", O_WRONLY | O_CREAT, 0600) >= 0);
  return 26;
}
static int limited(int kind, rlim_t most) {
  struct rlimit limit = {most, most};
  return setrlimit((__rlimit_resource_t)kind, &limit);
}
CASE(program_with_small_limits) {
  printf("%d ", limited(RLIMIT_NOFILE, 16));
  printf("%d ", limited(RLIMIT_STACK, 512 << 10));
  printf("%d ", limited(RLIMIT_CORE, 0));
  printf("%d\n", limited(RLIMIT_FSIZE, 0));
  return again("once_more");
}
CASE(new_memory_has_to_be_locked) {
  run_often(2);
  printf("%d ", limited(RLIMIT_MEMLOCK, 64 << 10));
  become_nobody();
  printf("%d\n", mlockall(MCL_FUTURE));
  run_often(20);
  return 0;
}

static volatile sig_atomic_t hung_up;
static void hang_up(int number) {
  hung_up += number == SIGHUP;
}
CASE(reopens_its_log) {
  log_to("service.log");
  signal(SIGHUP, hang_up);
  for (int i = 0; i < 3; ++i) {
    char old[32];
    run_often(2);
    fprintf(stderr, "line %d\n", i);
    raise(SIGHUP);
    sprintf(old, "service.log.%d", i);
    if (hung_up != i + 1 || rename("service.log", old)) return 1;
    log_to("service.log");
  }
  fprintf(stderr, "the last line");
  return 27;
}
CASE(reexecutes_itself_while_models_run) {
  static int served;
  pthread_t thread;
  int kept = open("listens", O_RDWR | O_CREAT, 0600);
  run_model(NULL);
  pthread_create(&thread, NULL, serves_for_ever, &served);
  while (__atomic_load_n(&served, __ATOMIC_SEQ_CST) < 3) usleep(100);
  flock(kept, LOCK_EX);
  dup2(kept, 42);
  fflush(stdout);
  execl("/proc/self/exe", program, "after_itself", NULL);
  return 98;
}
CASE(after_itself) {
  run_often(2);
  printf("%d\n", (int)write(42, "kept", 4));
  return 28;
}

/* A server with workers made beforehand: each answers requests until its supervisor ends it, gracefully. */
static void answer(int socket) {
  sigset_t set;
  struct signalfd_siginfo info;
  char request[8];
  int ends;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigprocmask(SIG_BLOCK, &set, NULL);
  ends = signalfd(-1, &set, SFD_CLOEXEC);
  while (read(socket, request, 1) == 1) {
    run_model(NULL);
    if (write(socket, request, 1) != 1) _exit(1);
  }
  if (read(ends, &info, sizeof info) != sizeof info) _exit(2);
  exit(info.ssi_signo == SIGTERM ? 29 : 3);
}
CASE(workers_made_beforehand) {
  enum { WORKERS = 3 };
  int sockets[WORKERS][2];
  pid_t workers[WORKERS];
  char answered[8];
  fflush(stdout);
  for (int i = 0; i < WORKERS; ++i) {
    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets[i]);
    if (!(workers[i] = fork())) {
      for (int j = 0; j <= i; ++j) close(sockets[j][0]);
      answer(sockets[i][1]);
    }
    close(sockets[i][1]);
  }
  for (int round = 0; round < 5; ++round)
    for (int i = 0; i < WORKERS; ++i)
      if (write(sockets[i][0], "r", 1) != 1 || read(sockets[i][0], answered, 1) != 1) return 1;
  for (int i = 0; i < WORKERS; ++i) {
    shutdown(sockets[i][0], SHUT_WR);
    kill(workers[i], SIGTERM);
    printf("%s\n", ended(workers[i]));
  }
  return 0;
}

/* Containers: each is the first process of its own numbers, and collects whatever ends in it. */
static void contained(int number) {
  pid_t child = fork();
  if (!child) {
    run_model(NULL);
    _exit(number);
  }
  run_model("contained");
  printf("%d %d %s\n", getpid() == 1, child == 2, ended(child));
  exit(30 + number);
}
CASE(containers) {
  for (int i = 0; i < 2; ++i) {
    if (unshare(CLONE_NEWPID)) return tell("unshare"), 1;
    fflush(stdout);
    pid_t child = fork();
    if (!child) contained(i);
    printf("%s\n", ended(child));
    fflush(stdout);
    /* Later children belong to the container that has ended, so the second one is made by a program of its own. */
    if (i == 0) {
      int own = open("/proc/self/ns/pid", O_RDONLY);
      if (setns(own, CLONE_NEWPID)) return tell("setns"), 1;
    }
  }
  return 0;
}
