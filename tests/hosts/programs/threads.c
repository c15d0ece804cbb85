/* Threads, their stacks and their ends. */
#define _GNU_SOURCE
#include "cases.h"

#include <limits.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <threads.h>
#include <time.h>
#include <ucontext.h>

static void *number(void *value) {
  return (void *)((long)value * 2);
}
static void *ends_by_exit(void *value) {
  pthread_exit(value);
}
static void *sleeps(void *nothing) {
  for (;;) pause();
  return nothing;
}
static void *spins(void *nothing) {
  pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
  for (volatile long i = 0;; ++i) {
  }
  return nothing;
}
static pthread_key_t key;
static void told(void *value) {
  printf("destroyed %ld\n", (long)value);
}
static void cleaned(void *value) {
  printf("cleaned %s\n", (char *)value);
}
static void *runs_model(void *nothing) {
  run_model("thread");
  return nothing;
}

CASE(many_threads) {
  pthread_t threads[64];
  long sum = 0;
  void *value;
  for (long i = 0; i < 64; ++i) pthread_create(&threads[i], NULL, number, (void *)i);
  for (int i = 0; i < 64; ++i) pthread_join(threads[i], &value), sum += (long)value;
  printf("%ld\n", sum);
  return 0;
}
CASE(thousand_threads_one_by_one) {
  long sum = 0;
  for (long i = 0; i < 1000; ++i) {
    pthread_t thread;
    void *value;
    pthread_create(&thread, NULL, number, (void *)i);
    pthread_join(thread, &value);
    sum += (long)value;
  }
  printf("%ld\n", sum);
  return 0;
}
CASE(models_on_threads) {
  for (int i = 0; i < 5; ++i) {
    pthread_t thread;
    pthread_create(&thread, NULL, runs_model, NULL);
    pthread_join(thread, NULL);
  }
  return 0;
}
CASE(thread_ends_itself) {
  pthread_t thread;
  void *value;
  pthread_create(&thread, NULL, ends_by_exit, (void *)7L);
  pthread_join(thread, &value);
  return (int)(long)value;
}
CASE(cancelled_while_it_waits) {
  pthread_t thread;
  void *value;
  pthread_create(&thread, NULL, sleeps, NULL);
  pthread_cancel(thread);
  pthread_join(thread, &value);
  return value == PTHREAD_CANCELED ? 3 : 4;
}
CASE(cancelled_at_any_place) {
  pthread_t thread;
  void *value;
  pthread_create(&thread, NULL, spins, NULL);
  pthread_cancel(thread);
  pthread_join(thread, &value);
  return value == PTHREAD_CANCELED ? 3 : 4;
}
static void *with_cleanup(void *text) {
  pthread_cleanup_push(cleaned, text);
  pthread_setspecific(key, (void *)9L);
  pthread_exit(NULL);
  pthread_cleanup_pop(0);
  return NULL;
}
CASE(cleanup_and_keys) {
  pthread_t thread;
  pthread_key_create(&key, told);
  pthread_create(&thread, NULL, with_cleanup, "up");
  pthread_join(thread, NULL);
  return 0;
}
CASE(smallest_stack) {
  pthread_t thread;
  pthread_attr_t attributes;
  void *value;
  pthread_attr_init(&attributes);
  printf("%d ", pthread_attr_setstacksize(&attributes, 64 * 1024));
  printf("%d ", pthread_create(&thread, &attributes, number, (void *)4L));
  pthread_join(thread, &value);
  printf("%ld\n", (long)value);
  return 0;
}
CASE(own_stack) {
  pthread_t thread;
  pthread_attr_t attributes;
  void *value, *stack = mmap(NULL, 1 << 17, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  pthread_attr_init(&attributes);
  pthread_attr_setstack(&attributes, stack, 1 << 17);
  printf("%d ", pthread_create(&thread, &attributes, number, (void *)4L));
  pthread_join(thread, &value);
  printf("%ld\n", (long)value);
  return 0;
}
CASE(detached) {
  pthread_t thread;
  pthread_create(&thread, NULL, sleeps, NULL);
  pthread_detach(thread);
  return 2;
}
CASE(too_many_threads) {
  struct rlimit limit = {1L << 30, 1L << 30};
  pthread_attr_t attributes;
  pthread_t thread;
  int failed = 0;
  if (getenv("HOST_MODEL")) return 0;
  setrlimit(RLIMIT_AS, &limit);
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, 1 << 28);
  for (int i = 0; i < 16 && !failed; ++i) failed = pthread_create(&thread, &attributes, sleeps, NULL);
  printf("%s\n", strerror(failed));
  return 0;
}
static int c11(void *value) {
  return (int)(long)value;
}
CASE(threads_of_c11) {
  thrd_t thread;
  int value = 0;
  printf("%d ", thrd_create(&thread, c11, (void *)6L) == thrd_success);
  thrd_join(thread, &value);
  return value;
}
static pthread_barrier_t barrier;
static void *meets(void *nothing) {
  pthread_barrier_wait(&barrier);
  return nothing;
}
CASE(barrier_and_condition) {
  pthread_t threads[3];
  pthread_barrier_init(&barrier, NULL, 4);
  for (int i = 0; i < 3; ++i) pthread_create(&threads[i], NULL, meets, NULL);
  pthread_barrier_wait(&barrier);
  for (int i = 0; i < 3; ++i) pthread_join(threads[i], NULL);
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
  struct timespec past = {1, 0};
  pthread_mutex_lock(&mutex);
  printf("%s\n", strerror(pthread_cond_timedwait(&condition, &mutex, &past)));
  return 0;
}
CASE(fork_in_a_thread) {
  pthread_t thread;
  void *value;
  pthread_create(&thread, NULL, (void *(*)(void *))case_many_threads, NULL);
  pthread_join(thread, &value);
  pid_t child = fork();
  if (!child) exit(case_many_threads(0, NULL) + 3);
  printf("%s\n", ended(child));
  return 0;
}
static ucontext_t here, there;
static void switched(void) {
  puts("on another stack");
}
CASE(contexts) {
  static char stack[1 << 16];
  getcontext(&there);
  there.uc_stack.ss_sp = stack;
  there.uc_stack.ss_size = sizeof stack;
  there.uc_link = &here;
  makecontext(&there, switched, 0);
  swapcontext(&here, &there);
  puts("back");
  return 0;
}
static void model_there(void) {
  run_model("on another stack");
}
CASE(model_on_another_stack) {
  char *stack = malloc(1 << 22);
  getcontext(&there);
  there.uc_stack.ss_sp = stack;
  there.uc_stack.ss_size = 1 << 22;
  there.uc_link = &here;
  makecontext(&there, model_there, 0);
  swapcontext(&here, &there);
  return 0;
}
static atomic_int expired;
static void on_timer(union sigval value) {
  expired = value.sival_int;
}
CASE(timer_starts_a_thread) {
  timer_t timer;
  struct sigevent event = {.sigev_notify = SIGEV_THREAD, .sigev_notify_function = on_timer, .sigev_value = {.sival_int = 6}};
  struct itimerspec soon = {{0, 0}, {0, 1000000}};
  printf("%d\n", timer_create(CLOCK_MONOTONIC, &event, &timer));
  timer_settime(timer, 0, &soon, NULL);
  while (!expired) usleep(100);
  return expired;
}
static pthread_mutex_t robust;
static void *dies_with_it(void *nothing) {
  pthread_mutex_lock(&robust);
  return nothing;
}
CASE(owner_died) {
  pthread_t thread;
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
  pthread_mutex_init(&robust, &attributes);
  pthread_create(&thread, NULL, dies_with_it, NULL);
  pthread_join(thread, NULL);
  printf("%s\n", strerror(pthread_mutex_lock(&robust)));
  return 0;
}
static void *ends_the_process(void *nothing) {
  usleep(1000);
  _exit(14);
  return nothing;
}
CASE(ends_while_threads_work) {
  pthread_t thread;
  for (int i = 0; i < 8; ++i) pthread_create(&thread, NULL, spins, NULL);
  pthread_create(&thread, NULL, ends_the_process, NULL);
  for (;;) pause();
}
