/* Programs that load libraries. HOST_PLUGIN in the environment names a shared object that the tests compile (plugin.c). */
#define _GNU_SOURCE
#include "cases.h"

#include <link.h>

typedef int function(int);

static void *plugin(int flags) {
  void *library = dlopen(getenv("HOST_PLUGIN"), flags);
  if (!library) printf("%s\n", dlerror());
  return library;
}

CASE(opens_and_closes) {
  for (int i = 0; i < 3; ++i) {
    void *library = plugin(RTLD_NOW);
    printf("%d %d\n", ((function *)dlsym(library, "doubled"))(4), dlclose(library));
  }
  return 0;
}
CASE(stays_open) {
  return ((function *)dlsym(plugin(RTLD_NOW), "doubled"))(4);
}
CASE(binds_deep) {
  return ((function *)dlsym(plugin(RTLD_NOW | RTLD_DEEPBIND), "doubled"))(6);
}
CASE(deep_plugin_starts_a_thread) {
  return ((function *)dlsym(plugin(RTLD_NOW | RTLD_DEEPBIND), "on_a_thread"))(6);
}
CASE(plugin_starts_a_thread) {
  return ((function *)dlsym(plugin(RTLD_NOW), "on_a_thread"))(7);
}
CASE(plugin_forks) {
  return ((function *)dlsym(plugin(RTLD_NOW), "in_a_child"))(7);
}
CASE(plugin_ends_the_process) {
  return ((function *)dlsym(plugin(RTLD_NOW), "ends"))(9);
}
CASE(plugin_opens_another) {
  return ((function *)dlsym(plugin(RTLD_NOW), "opens"))(0);
}
CASE(plugin_finds_the_next) {
  return ((function *)dlsym(plugin(RTLD_NOW), "next"))(0);
}
CASE(own_name_space) {
  void *library = dlmopen(LM_ID_NEWLM, getenv("HOST_PLUGIN"), RTLD_NOW);
  if (!library) return 3;
  return ((function *)dlsym(library, "doubled"))(5);
}
CASE(missing_library) {
  printf("%d ", dlopen("libno-such-thing.so", RTLD_NOW) != NULL);
  puts(dlerror());
  printf("%d\n", dlerror() == NULL);
  return 0;
}
CASE(missing_symbol) {
  printf("%d ", dlsym(plugin(RTLD_NOW), "no_such_thing") != NULL);
  puts(strstr(dlerror(), "undefined symbol"));
  return 0;
}
CASE(error_is_kept) {
  dlsym(RTLD_DEFAULT, "no_such_thing");
  run_model("between");
  printf("%d\n", dlerror() != NULL);
  return 0;
}
CASE(default_and_next) {
  printf("%d %d\n", dlsym(RTLD_DEFAULT, "main") != NULL, dlsym(RTLD_NEXT, "getpid") == dlsym(RTLD_DEFAULT, "getpid"));
  return 0;
}
CASE(versioned_symbol) {
  printf("%d\n", dlvsym(RTLD_DEFAULT, "puts", "GLIBC_2.2.5") == dlsym(RTLD_DEFAULT, "puts"));
  return 0;
}
CASE(not_loaded_yet) {
  printf("%d ", dlopen(getenv("HOST_PLUGIN"), RTLD_NOW | RTLD_NOLOAD) != NULL);
  plugin(RTLD_NOW);
  printf("%d\n", dlopen(getenv("HOST_PLUGIN"), RTLD_NOW | RTLD_NOLOAD) != NULL);
  return 0;
}
CASE(address_to_name) {
  Dl_info info = {0};
  void *library = plugin(RTLD_NOW);
  printf("%d ", dladdr(dlsym(library, "doubled"), &info) != 0);
  puts(info.dli_sname);
  return 0;
}
static int own_objects(struct dl_phdr_info *info, size_t size, void *count) {
  (void)size;
  *(int *)count += strstr(info->dlpi_name, "plugin") != NULL;
  return 0;
}
CASE(lists_objects) {
  int count = 0;
  plugin(RTLD_NOW);
  dl_iterate_phdr(own_objects, &count);
  return count;
}
static void *opens_and_closes(void *nothing) {
  for (int i = 0; i < 50; ++i) {
    void *library = plugin(RTLD_NOW);
    if (((function *)dlsym(library, "doubled"))(4) != 8) exit(50);
    dlclose(library);
  }
  return nothing;
}
CASE(opens_on_many_threads) {
  pthread_t threads[8];
  putenv("HOST_QUIET=1"); /* the plugin prints nothing, because how often it is loaded anew is random here */
  for (int i = 0; i < 8; ++i) pthread_create(&threads[i], NULL, opens_and_closes, NULL);
  for (int i = 0; i < 8; ++i) pthread_join(threads[i], NULL);
  return 0;
}
CASE(closes_at_the_end) {
  static void *library;
  library = plugin(RTLD_NOW);
  exit(dlclose(library) + 3);
}
CASE(thread_local_of_a_plugin) {
  function *counted = (function *)dlsym(plugin(RTLD_NOW), "counted");
  counted(1);
  printf("%d\n", counted(1));
  return 0;
}
CASE(opens_the_program) {
  return dlsym(dlopen(NULL, RTLD_NOW), "main") != NULL;
}
CASE(handle_of_an_object) {
  struct link_map *map = NULL;
  printf("%d ", dlinfo(plugin(RTLD_NOW), RTLD_DI_LINKMAP, &map));
  puts(strrchr(map->l_name, '/'));
  return 0;
}
