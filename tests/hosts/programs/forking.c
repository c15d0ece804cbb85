/* forking CHILDREN THREADS: forks while other threads run the model that the environment names. Each child runs the model too,
 * or executes another program. Prints how the children ended: right, wrong, hung (not within ten seconds).
 * forking RUNS: runs the model RUNS times, then forks a child that ends at once. Prints how many pages the child touched. */
#define _GNU_SOURCE
#include "model.h"
#include "model_sum.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static model *shared;
static atomic_int stop, runs;

static float run(void) {
  return model_sum(shared);
}
static void *again_and_again(void *nothing) {
  while (!stop) run(), ++runs;
  return nothing;
}
static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static int pages_of_a_child(int times) {
  struct rusage usage;
  for (int i = 0; i < times; ++i) run();
  pid_t child = fork();
  if (!child) syscall(SYS_exit_group, 0);
  waitpid(child, NULL, 0);
  getrusage(RUSAGE_CHILDREN, &usage);
  printf("pages %ld\n", usage.ru_minflt);
  return 0;
}

int main(int argc, char **argv) {
  shared = model_load(getenv("HOST_MODEL_FILE"));
  if (!shared || argc < 2) return 1;
  if (argc == 2) return pages_of_a_child(atoi(argv[1]));
  int children = atoi(argv[1]), threads = atoi(argv[2]), ends[3] = {0};
  pthread_t busy[64];
  float expected = run();
  for (int i = 0; i < 10; ++i) run();
  for (int i = 0; i < threads; ++i) pthread_create(&busy[i], NULL, again_and_again, NULL);
  while (runs < 2 * threads) usleep(100);
  for (int i = 0; i < children; ++i) {
    int status = 0;
    pid_t child = fork(), done;
    if (!child) {
      if (i % 4 == 3) execl("/bin/true", "true", NULL);
      _exit(run() == expected ? 0 : 1);
    }
    double end = now() + 10;
    while (!(done = waitpid(child, &status, WNOHANG)) && now() < end) usleep(200);
    if (!done) kill(child, SIGKILL), waitpid(child, &status, 0);
    ++ends[!done ? 2 : WIFEXITED(status) && !WEXITSTATUS(status) ? 0 : 1];
  }
  stop = 1;
  for (int i = 0; i < threads; ++i) pthread_join(busy[i], NULL);
  printf("right %d wrong %d hung %d\n", ends[0], ends[1], ends[2]);
  return run() == expected ? 0 : 2;
}
