/* sealed END: runs the model that the environment names, seals itself, and runs it again. After the seal, the kernel
 * kills the process at any system call that opens, renames or removes a file, starts a process or a thread, or sets a timer.
 * END: `exit`, `_exit`, `thread` (a thread from before the seal runs the model, too, and the process ends by a
 * system call of its own), or `child` (it is a forked child that seals itself and runs the model). Prints the sums of all
 * results. */
#include "model.h"
#include "model_sum.h"
#include "seal.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { RUNS = 200 };

static model *shared;
static pthread_barrier_t sealed;

static float run(void) {
  return model_sum(shared);
}
static void *run_on(void *nothing) {
  float sum = run();
  pthread_barrier_wait(&sealed); // until the process is about to be sealed
  pthread_barrier_wait(&sealed); // until the process is sealed
  for (int i = 0; i < RUNS; ++i) sum += run();
  printf("%.9g\n", sum);
  return nothing;
}

int main(int argc, char **argv) {
  shared = model_load(getenv("HOST_MODEL_FILE"));
  if (!shared || argc != 2) return 1;
  float sum = run() + run();
  /* Printed before the seal: the first output allocates the stream's buffer, for which libc calls fstat. */
  printf("%.9g\n", sum);
  fflush(stdout);
  pthread_t thread;
  int threaded = !strcmp(argv[1], "thread");
  if (threaded) {
    pthread_barrier_init(&sealed, NULL, 2);
    pthread_create(&thread, NULL, run_on, NULL);
    pthread_barrier_wait(&sealed);
  }
  int forked = !strcmp(argv[1], "child");
  if (forked && fork()) {
    int status = 0;
    wait(&status);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 3;
  }
  if (seal()) return 2;
  if (threaded) pthread_barrier_wait(&sealed);
  for (int i = 0; i < RUNS; ++i) sum += run();
  if (threaded) pthread_join(thread, NULL);
  printf("%.9g\n", sum);
  fflush(stdout);
  if (forked) exit(8);
  if (!strcmp(argv[1], "exit")) exit(5);
  if (!strcmp(argv[1], "_exit")) _exit(6);
  syscall(SYS_exit_group, 7);
}
