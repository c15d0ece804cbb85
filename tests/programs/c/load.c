/* Loads a library as a plugin and calls a main function in it: load LIBRARY FUNCTION plain|deep ARGUMENTS...
 * deep: the plugin's symbols are looked up in its own libraries first. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv) {
  if (argc < 4) {
    fprintf(stderr, "usage: load LIBRARY FUNCTION plain|deep ARGUMENTS...\n");
    return 1;
  }
  int deep = strcmp(argv[3], "deep") == 0 ? RTLD_DEEPBIND : 0;
  void *plugin = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL | deep);
  int (*run)(int, char **) = plugin ? (int (*)(int, char **))dlsym(plugin, argv[2]) : NULL;
  if (!run) {
    fprintf(stderr, "load: %s\n", dlerror());
    return 1;
  }
  return run(argc - 3, argv + 3);
}
