/* A host program with many cases: `program NAME` runs one of them. A case prints what it finds; its value is the exit code.
 * HOST_MODEL may name a shared object with model.h's functions, and HOST_MODEL_FILE a TorchScript file. Then the model runs
 * before the case and after it, and its results are printed. Nothing here knows of libgraphpatch. */
#ifndef CASES_H
#define CASES_H

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

struct entry {
  const char *name;
  int (*run)(int argc, char **argv);
};

#define CASE(name)                                                                                                             \
  static int case_##name(int argc, char **argv);                                                                               \
  __attribute__((section("cases"), used, aligned(16))) static struct entry entry_##name = {#name, case_##name};                \
  static int case_##name(__attribute__((unused)) int argc, __attribute__((unused)) char **argv)

extern struct entry __start_cases[], __stop_cases[];

static const char *program;

/* How a child ended, as text. */
static inline const char *ended(pid_t pid) {
  static char text[64];
  int status = 0;
  if (pid < 0 || waitpid(pid, &status, 0) != pid) snprintf(text, sizeof text, "no child: %s", strerror(errno));
  else if (WIFEXITED(status)) snprintf(text, sizeof text, "exit %d", WEXITSTATUS(status));
  else snprintf(text, sizeof text, "signal %d", WTERMSIG(status));
  return text;
}

static inline void tell(const char *what) {
  printf("%s: %s\n", what, errno ? strerror(errno) : "no error");
  errno = 0;
}

/* Runs the model of the environment, if there is one, and prints the sum of its output, unless `when` is NULL. */
static inline void run_model(const char *when) {
  static void *(*load)(const char *);
  static long (*run)(void *, const float *, long, long, float *, size_t);
  static void *model;
  if (!getenv("HOST_MODEL") && !model) return;
  if (!model) {
    void *library = dlopen(getenv("HOST_MODEL"), RTLD_NOW | RTLD_LOCAL);
    if (!library) {
      printf("%s\n", dlerror());
      exit(99);
    }
    load = (void *(*)(const char *))dlsym(library, "model_load");
    run = (long (*)(void *, const float *, long, long, float *, size_t))dlsym(library, "model_run");
    model = load(getenv("HOST_MODEL_FILE"));
  }
  float input[8] = {1, -2, 3, -4, 5, -6, 7, -8}, output[64], sum = 0;
  long n = run(model, input, 2, 4, output, 64);
  for (long i = 0; i < n; ++i) sum += output[i] * (float)(i + 1);
  if (when) printf("%s: %ld %a\n", when, n, (double)sum);
}

int main(int argc, char **argv) {
  program = argv[0];
  for (struct entry *e = __start_cases; e < __stop_cases; ++e) {
    if (argc < 2 || strcmp(e->name, argv[1])) continue;
    run_model("before");
    fflush(stdout);
    errno = 0;
    int code = e->run(argc, argv);
    run_model("after");
    fflush(stdout);
    return code;
  }
  fprintf(stderr, "no such case\n");
  return 98;
}
#endif
