/* The plugin that the programs of loading.c load. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static __thread int times;

__attribute__((constructor)) static void opened(void) {
  if (!getenv("HOST_QUIET")) printf("opened %d\n", dlsym(RTLD_DEFAULT, "no_such_thing") != NULL);
}
__attribute__((destructor)) static void closed(void) {
  if (!getenv("HOST_QUIET")) puts("closed");
}

int doubled(int x) {
  return 2 * x;
}
int counted(int x) {
  return times += x;
}
static void *work(void *value) {
  return (void *)((long)value + 1);
}
int on_a_thread(int x) {
  pthread_t thread;
  void *value;
  if (pthread_create(&thread, NULL, work, (void *)(long)x)) return 1;
  pthread_join(thread, &value);
  return (int)(long)value;
}
int in_a_child(int x) {
  int status = 0;
  pid_t child = fork();
  if (!child) _exit(x);
  waitpid(child, &status, 0);
  return WEXITSTATUS(status);
}
int ends(int x) {
  exit(x);
}
int opens(int x) {
  void *library = dlopen("libm.so.6", RTLD_NOW);
  return x + (dlsym(library, "cos") != NULL) + dlclose(library);
}
int next(int x) {
  return x + (dlsym(RTLD_NEXT, "pthread_create") != NULL);
}
