/* obeys: runs the model that the environment names, and does what the lines on its standard input say. After each line it
 * prints one.
 *   run           the sum of the model's output
 *   signals       from now on a timer interrupts it a thousand times a second; counts these and signals of number SIGRTMIN
 *   counted       how many signals of number SIGRTMIN came, if the timer's came, too
 *   fork          from now on a thread forks children that run the model
 *   children      how many children were right (bare, or with a zero for the output), wrong, and hung (for ten seconds), once
 *                 there are twenty more
 *   compute       when it has answered, computes for four seconds without a system call, before it waits for the next line
 *   small         as `compute`, while a thread with little stack computes for two seconds and then waits for an event
 *   waits         whether that thread waits still
 *   descriptors   which numbers below 64 are open
 *   close         closes the standard streams
 *   write         what writing to the standard streams answers
 *   take          closes every descriptor from 3 on, and opens a file of its own under each number up to 700
 *   mine          how many of these are still open and its own
 *   limit WHAT    no more `files`, `memory` or `bytes` in files than there are
 *   seal          opening, renaming and removing files, and starting processes, threads and timers, are death from now on
 * It speaks by descriptors of its own. At the end of the lines it returns 7. */
#define _GNU_SOURCE
#include "model.h"
#include "model_sum.h"
#include "seal.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { HEARS = 900, SPEAKS = 901, TAKEN = 700 };

static model *shared;
static float bare;
static atomic_long rang, came, right, wrong, hung;
static struct stat own;
static int computes;
static atomic_int ended, last;
static pthread_t forks;

static void count(int number) {
  ++*(number == SIGALRM ? &rang : &came);
}
static void compute(int seconds) {
  struct timespec begin, now;
  clock_gettime(CLOCK_MONOTONIC, &begin);
  do clock_gettime(CLOCK_MONOTONIC, &now);
  while (now.tv_sec - begin.tv_sec < seconds);
}
static void *wait_with_little_stack(void *nothing) {
  struct epoll_event event;
  int none = epoll_create1(0);
  compute(2);
  epoll_wait(none, &event, 1, -1);
  ended = 1;
  return nothing;
}
static void *do_nothing(void *nothing) {
  return nothing;
}
static void small(void) {
  pthread_attr_t attributes;
  pthread_t thread;
  size_t size = 16 << 10;
  pthread_attr_init(&attributes);
  /* What libraries keep for each thread lies in its stack, too. */
  for (int made = EINVAL; made; size += 4096) {
    pthread_attr_setstacksize(&attributes, size);
    made = pthread_create(&thread, &attributes, do_nothing, NULL);
    if (size > 1 << 20) exit(3);
  }
  pthread_join(thread, NULL);
  pthread_attr_setstacksize(&attributes, size + (28 << 10));
  if (pthread_create(&thread, &attributes, wait_with_little_stack, NULL)) exit(3);
  computes = 1;
}
static void *fork_often(void *nothing) {
  while (!last) {
    int status = 0;
    pid_t child = fork();
    if (!child) {
      alarm(10);
      float sum = model_sum(shared);
      _exit(sum == bare || sum == 0 ? 0 : 1);
    }
    int came_back = waitpid(child, &status, 0) == child;
    ++*(came_back && !status ? &right : came_back && WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM ? &hung : &wrong);
  }
  return nothing;
}
/* glibc does not let a child have the lock that `exit` holds while it calls handlers: no fork may be under way then. */
static int end(void) {
  last = 1;
  if (forks) pthread_join(forks, NULL);
  return 7;
}
static void take(void) {
  for (int i = 3; i < HEARS; ++i) close(i);
  int file = open("own", O_RDWR | O_CREAT, 0600);
  fstat(file, &own);
  for (int i = 3; i <= TAKEN; ++i)
    if (i != file) dup2(file, i);
}
static int mine(void) {
  int found = 0;
  struct stat now;
  for (int i = 3; i <= TAKEN; ++i) found += !fstat(i, &now) && now.st_ino == own.st_ino && now.st_dev == own.st_dev;
  return found;
}
static void limit(const char *what) {
  struct rlimit now;
  long pages = 0;
  int kind = strcmp(what, "files") == 0 ? RLIMIT_NOFILE : strcmp(what, "memory") == 0 ? RLIMIT_AS : RLIMIT_FSIZE;
  getrlimit((__rlimit_resource_t)kind, &now);
  now.rlim_cur = 0;
  if (kind == RLIMIT_NOFILE) now.rlim_cur = (rlim_t)dup(HEARS), close((int)now.rlim_cur);
  if (kind == RLIMIT_AS) {
    FILE *file = fopen("/proc/self/statm", "r");
    if (file && fscanf(file, "%ld", &pages) == 1) now.rlim_cur = (rlim_t)(pages * sysconf(_SC_PAGESIZE) + 4096);
    if (file) fclose(file);
  }
  if (setrlimit((__rlimit_resource_t)kind, &now)) exit(3);
}

static void obey(const char *line, char *said) {
  struct itimerval often = {{0, 1000}, {0, 1000}};
  struct sigaction action = {.sa_handler = count, .sa_flags = SA_RESTART};
  strcpy(said, "done");
  if (!strcmp(line, "run")) sprintf(said, "%a", (double)model_sum(shared));
  else if (!strcmp(line, "signals")) {
    sigaction(SIGALRM, &action, NULL);
    sigaction(SIGRTMIN, &action, NULL);
    setitimer(ITIMER_REAL, &often, NULL);
  } else if (!strcmp(line, "counted")) sprintf(said, "%ld", rang ? (long)came : -1);
  else if (!strcmp(line, "compute")) computes = 1;
  else if (!strcmp(line, "small")) small();
  else if (!strcmp(line, "waits")) strcpy(said, ended ? "no" : "yes");
  else if (!strcmp(line, "fork")) pthread_create(&forks, NULL, fork_often, NULL);
  else if (!strcmp(line, "children")) {
    for (long then = right + wrong; right + wrong < then + 20;) usleep(1000);
    sprintf(said, "right %ld wrong %ld hung %ld", (long)right, (long)wrong, (long)hung);
  } else if (!strcmp(line, "descriptors")) {
    *said = 0;
    for (int i = 0; i < 64; ++i)
      if (fcntl(i, F_GETFD) >= 0) sprintf(said + strlen(said), "%d ", i);
  } else if (!strcmp(line, "close")) close(0), close(1), close(2);
  else if (!strcmp(line, "write")) {
    *said = 0;
    for (int i = 0; i < 3; ++i) sprintf(said + strlen(said), "%s, ", write(i, "mine", 4) < 0 ? strerror(errno) : "written");
  } else if (!strcmp(line, "take")) take();
  else if (!strcmp(line, "mine")) sprintf(said, "%d", mine());
  else if (!strncmp(line, "limit ", 6)) limit(line + 6);
  else if (!strcmp(line, "seal") && seal()) strcpy(said, "not sealed");
}

int main(void) {
  static char line[100], said[1000];
  /* Of its own memory and descriptors alone, so that no limit and no closing stops the talk. */
  if (dup2(0, HEARS) < 0 || dup2(1, SPEAKS) < 0) return 1;
  int nothing = open("/dev/null", O_RDWR);
  dup2(nothing, 0);
  dup2(nothing, 1);
  close(nothing);
  shared = model_load(getenv("HOST_MODEL_FILE"));
  if (!shared) return 2;
  for (int i = 0; i < 5; ++i) bare = model_sum(shared);
  for (size_t length = 0;;) {
    ssize_t got = read(HEARS, line + length, 1);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return end();
    if (line[length] != '\n') {
      length += length + 2 < sizeof line;
      continue;
    }
    line[length] = 0;
    length = 0;
    obey(line, said);
    strcat(said, "\n");
    if (write(SPEAKS, said, strlen(said)) < 0) return 4;
    if (computes) computes = 0, compute(4);
  }
}
