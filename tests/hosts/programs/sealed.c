/* sealed END: runs the model that the environment names, seals itself, and runs it again. After the seal, the kernel
 * kills the process at any system call that opens, renames or removes a file, starts a process or a thread, or sets a timer.
 * END: `exit`, `_exit`, `thread` (a thread from before the seal runs the model, too, and the process ends by a
 * system call of its own), or `child` (it is a forked child that seals itself and runs the model). Prints the sums of all
 * results. */
#include "model.h"
#include "model_sum.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
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

#define KILL_AT(call) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (call), 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS)

static int seal(void) {
  struct sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      KILL_AT(SYS_openat),
      KILL_AT(SYS_openat2),
      KILL_AT(SYS_clone),
      KILL_AT(SYS_clone3),
      KILL_AT(SYS_execve),
      KILL_AT(SYS_setitimer),
      KILL_AT(SYS_timer_create),
      KILL_AT(SYS_renameat),
      KILL_AT(SYS_renameat2),
      KILL_AT(SYS_unlinkat),
      KILL_AT(SYS_mkdirat),
      KILL_AT(SYS_socket),
      KILL_AT(SYS_rt_sigaction),
      KILL_AT(SYS_readlinkat),
      KILL_AT(SYS_newfstatat),
#ifdef SYS_open
      KILL_AT(SYS_open),
      KILL_AT(SYS_rename),
      KILL_AT(SYS_unlink),
      KILL_AT(SYS_mkdir),
      KILL_AT(SYS_fork),
      KILL_AT(SYS_vfork),
      KILL_AT(SYS_readlink),
      KILL_AT(SYS_stat),
#endif
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog all = {sizeof filter / sizeof *filter, filter};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) return -1;
  return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &all);
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
