/* A plain C program that gets libtorch only when it loads its plugin: late PLUGIN.so MODEL.pt INPUTS.pt
 * PLUGIN.so may be a bare file name; it is then found through this program's own RUNPATH ($ORIGIN), as dlopen does. */

#include <dlfcn.h>
#include <stdio.h>

int main(int argc, char **argv) {
  if (argc != 4) {
    fprintf(stderr, "usage: late PLUGIN.so MODEL.pt INPUTS.pt\n");
    return 1;
  }
  void *plugin = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
  if (!plugin) {
    fprintf(stderr, "late: %s\n", dlerror());
    return 1;
  }
  int (*run)(const char *, const char *) = (int (*)(const char *, const char *))dlsym(plugin, "plugin_run");
  if (!run) {
    fprintf(stderr, "late: %s\n", dlerror());
    return 1;
  }
  return run(argv[2], argv[3]);
}
