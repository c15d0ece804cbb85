/* A filter of system calls (seccomp) on all threads: opening, renaming and removing files, and starting processes, threads and
 * timers, ends the process. */
#ifndef SEAL_H
#define SEAL_H

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

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
#endif
