/* Descriptors and files. */
#define _GNU_SOURCE
#include "cases.h"

#include <dirent.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>

CASE(what_is_open) {
  for (int i = 0; i < 64; ++i)
    if (fcntl(i, F_GETFD) >= 0) printf("%d %d\n", i, fcntl(i, F_GETFL) & O_ACCMODE);
  return 0;
}
CASE(lowest_number) {
  int a = open("a", O_CREAT | O_RDWR, 0600), b = dup(a);
  close(a);
  printf("%d %d %d\n", a, b, open("b", O_CREAT | O_RDWR, 0600));
  return 0;
}
CASE(closed_standard_streams) {
  close(0);
  close(1);
  close(2);
  int file = open("stdin", O_CREAT | O_RDWR, 0600);
  int other = open("stdout", O_CREAT | O_RDWR, 0600);
  int third = open("stderr", O_CREAT | O_RDWR, 0600);
  return dprintf(third, "%d %d %d\n", file, other, third) > 0 ? 0 : 1;
}
CASE(stderr_is_a_file_of_its_own) {
  int file = open("own", O_CREAT | O_RDWR, 0600);
  dup2(file, 2);
  fprintf(stderr, "mine\n");
  return 0;
}
CASE(stdout_is_reopened) {
  if (!freopen("out", "w", stdout)) return 1;
  puts("in a file");
  return 0;
}
CASE(all_other_descriptors_closed) {
  printf("%ld\n", syscall(SYS_close_range, 3U, ~0U, 0U));
  printf("%d\n", open("a", O_CREAT | O_RDWR, 0600));
  return 0;
}
CASE(every_descriptor_closed_by_number) {
  for (int i = 3; i < 4096; ++i) close(i);
  printf("%d\n", open("a", O_CREAT | O_RDWR, 0600));
  return 0;
}
CASE(no_descriptors_left) {
  struct rlimit limit = {32, 32};
  int last = 0, next;
  setrlimit(RLIMIT_NOFILE, &limit);
  while ((next = open("/dev/null", O_RDONLY)) >= 0) last = next;
  tell("open");
  printf("%d\n", last);
  return 0;
}
CASE(mask_of_new_files) {
  struct stat info;
  mode_t before = umask(0077);
  close(open("private", O_CREAT | O_RDWR, 0666));
  umask(0);
  close(open("public", O_CREAT | O_RDWR, 0666));
  stat("private", &info);
  printf("%o %o\n", before, info.st_mode & 0777);
  return 0;
}
CASE(folder_is_removed) {
  char name[4096];
  mkdir("gone", 0755);
  if (chdir("gone") || rmdir("../gone")) return 1;
  printf("%d\n", getcwd(name, sizeof name) != NULL);
  tell("getcwd");
  return 0;
}
CASE(other_folder) {
  mkdir("other", 0755);
  if (chdir("other")) return 1;
  close(open("here", O_CREAT | O_RDWR, 0600));
  return 0;
}
CASE(unreadable_folder) {
  mkdir("closed", 0);
  return chdir("closed");
}
CASE(moves_and_links) {
  close(open("a", O_CREAT | O_RDWR, 0600));
  printf("%d %d %d %d\n", rename("a", "b"), link("b", "c"), symlink("c", "d"), unlink("b"));
  return 0;
}
CASE(memory_file) {
  char text[8] = "";
  int file = memfd_create("name", MFD_ALLOW_SEALING);
  printf("%d %zd ", file, write(file, "hello", 5));
  printf("%d %zd ", fcntl(file, F_ADD_SEALS, F_SEAL_WRITE), pread(file, text, 5, 0));
  puts(text);
  return 0;
}
CASE(unnamed_file) {
  int file = open(".", O_TMPFILE | O_RDWR, 0600);
  printf("%d\n", file >= 0 && write(file, "x", 1) == 1);
  return 0;
}
CASE(watches_a_folder) {
  char events[4096];
  int watch = inotify_init();
  inotify_add_watch(watch, ".", IN_CREATE | IN_CLOSE_WRITE | IN_DELETE);
  close(open("watched", O_CREAT | O_RDWR, 0600));
  unlink("watched");
  long n = read(watch, events, sizeof events);
  for (long at = 0; at < n;) {
    struct inotify_event *event = (struct inotify_event *)(events + at);
    printf("%x %s\n", event->mask, event->len ? event->name : "");
    at += (long)(sizeof *event + event->len);
  }
  return 0;
}
CASE(polls) {
  int ready = eventfd(3, 0), queue = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event event = {EPOLLIN, {.u32 = 7}}, got;
  epoll_ctl(queue, EPOLL_CTL_ADD, ready, &event);
  int n = epoll_wait(queue, &got, 1, -1);
  printf("%d %u\n", n, got.data.u32);
  struct pollfd both[2] = {{ready, POLLIN, 0}, {-1, POLLIN, 0}};
  n = poll(both, 2, -1);
  printf("%d %d\n", n, both[0].revents);
  return 0;
}
CASE(timer_descriptor) {
  unsigned long long times = 0;
  int timer = timerfd_create(CLOCK_MONOTONIC, 0);
  struct itimerspec soon = {{0, 0}, {0, 1000000}};
  timerfd_settime(timer, 0, &soon, NULL);
  printf("%zd ", read(timer, &times, sizeof times));
  printf("%llu\n", times);
  return 0;
}
CASE(locks_a_file) {
  int file = open("lock", O_CREAT | O_RDWR, 0600);
  printf("%d\n", flock(file, LOCK_EX));
  pid_t child = fork();
  if (!child) _exit(flock(open("lock", O_RDWR), LOCK_EX | LOCK_NB) ? errno == EWOULDBLOCK : 2);
  printf("%s\n", ended(child));
  return 0;
}
CASE(process_lock) {
  struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
  int file = open("lock", O_CREAT | O_RDWR, 0600);
  printf("%d\n", fcntl(file, F_SETLK, &lock));
  pid_t child = fork();
  if (!child) _exit(fcntl(file, F_SETLK, &lock) ? 1 : 2);
  printf("%s\n", ended(child));
  return 0;
}
CASE(sends_a_file) {
  int from = open(program, O_RDONLY), to = open("copy", O_CREAT | O_RDWR, 0600);
  printf("%zd\n", sendfile(to, from, NULL, 1000));
  return 0;
}
CASE(hands_a_descriptor_over) {
  int pair[2], file = open("handed", O_CREAT | O_RDWR, 0600);
  char byte = 'x', space[CMSG_SPACE(sizeof(int))] = {0};
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair)) return 1;
  struct iovec data = {&byte, 1};
  struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
  struct cmsghdr *head = CMSG_FIRSTHDR(&message);
  head->cmsg_level = SOL_SOCKET;
  head->cmsg_type = SCM_RIGHTS;
  head->cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(head), &file, sizeof file);
  printf("%zd ", sendmsg(pair[0], &message, 0));
  printf("%zd ", recvmsg(pair[1], &message, 0));
  memcpy(&file, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof file);
  printf("%d\n", file);
  return 0;
}
CASE(copies_stdin) {
  char bytes[4096];
  long n, sum = 0;
  while ((n = read(0, bytes, sizeof bytes)) > 0) {
    for (long i = 0; i < n; ++i) sum = sum * 31 + (unsigned char)bytes[i];
    if (write(1, bytes, (size_t)n) != n) return 1;
  }
  return (int)(sum & 63);
}
CASE(much_output) {
  for (int i = 0; i < 40000; ++i) printf("line %d of much output\n", i);
  return 0;
}
CASE(unbuffered) {
  setvbuf(stdout, NULL, _IONBF, 0);
  for (int i = 0; i < 100; ++i) printf("%d,", i), fprintf(stderr, "%d;", i);
  fprintf(stderr, "\n");
  return 0;
}
CASE(all_bytes) {
  for (int i = 0; i < 256; ++i) putchar(i), putc(i, stderr);
  putc('\n', stderr);
  return 0;
}
CASE(named_pipe) {
  char text[4] = "";
  mkfifo("pipe", 0600);
  pid_t child = fork();
  if (!child) _exit(write(open("pipe", O_WRONLY), "abc", 3) == 3 ? 0 : 1);
  printf("%zd %s\n", read(open("pipe", O_RDONLY), text, 3), text);
  printf("%s\n", ended(child));
  return 0;
}
CASE(inherited_descriptors) {
  char number[16];
  int kept = open("kept", O_CREAT | O_RDWR, 0600), gone = open("gone", O_CREAT | O_RDWR | O_CLOEXEC, 0600);
  snprintf(number, sizeof number, "%d %d", kept, gone);
  execl(program, program, "what_is_open", number, NULL);
  return 1;
}
CASE(limit_on_files_set_late) {
  struct rlimit limit = {0, 0};
  puts("before the limit");
  fflush(stdout);
  signal(SIGXFSZ, SIG_DFL);
  return setrlimit(RLIMIT_FSIZE, &limit);
}
CASE(own_executable) {
  char name[4096] = "", *last;
  long n = readlink("/proc/self/exe", name, sizeof name - 1);
  last = n > 0 ? strrchr(name, '/') : NULL;
  printf("%s\n", last ? last : "none");
  return 0;
}
CASE(stderr_is_its_own_before_libtorch_comes) {
  int file = open("own", O_CREAT | O_RDWR, 0600);
  dup2(file, 2);
  close(file);
  fprintf(stderr, "mine\n");
  setenv("HOST_MODEL", getenv("HOST_LATE"), 1);
  run_model("late");
  fprintf(stderr, "mine\n");
  return 0;
}
