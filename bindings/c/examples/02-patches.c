/* 02: patches that text cannot say, counted and taken away. It needs no libtorch: what it registers would hold in a program
 * that has one, after gp_session_attach.
 *
 *   02-patches PATH [SLICE] */
#include <graphpatch.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static void ok(gp_status status) {
  if (status == GP_STATUS_OK)
    return;
  fprintf(stderr, "02-patches: %s\n", gp_last_error());
  exit(1);
}

static gp_spec* spec_for(const char* path, const char* slice) {
  gp_spec* spec = NULL;
  ok(gp_spec_new(path, &spec));
  if (slice)
    ok(gp_spec_slice(spec, slice));
  return spec;
}

int main(int argc, char** argv) {
  if (argc < 2) {
    fprintf(stderr, "usage: 02-patches PATH [SLICE]\n");
    return 2;
  }
  const char *path = argv[1], *slice = argc > 2 ? argv[2] : NULL;
  gp_session* session = NULL;
  ok(gp_session_open(&session));

  /* A slice is checked against sizes, here those of a batch of two texts with 12 heads. */
  if (slice) {
    const int64_t sizes[] = {2, 12, 9, 9};
    int64_t elements = 0;
    ok(gp_slice_check(slice, sizes, 4, &elements));
    printf("%s picks %" PRId64 " elements\n", slice, elements);
  }

  /* A value may be freed once a spec has it, and a spec once it is registered. Values are kept before they are changed. */
  gp_value* half = NULL;
  ok(gp_value_float(0.5, &half));
  gp_spec* specs[] = {spec_for(path, NULL), spec_for(path, slice)};
  ok(gp_spec_record(specs[0], 8));
  ok(gp_spec_add(specs[1], half));
  ok(gp_spec_runs(specs[1], "2.."));
  gp_value_free(half);
  uint64_t ids[2];
  ok(gp_patch_register_all(session, (const gp_spec* const*)specs, 2, ids));
  gp_spec_free(specs[0]);
  gp_spec_free(specs[1]);

  gp_patch_counts counts = GP_PATCH_COUNTS_INIT;
  ok(gp_patch_get_counts(session, ids[1], &counts));
  printf("applied %" PRIu64 " times\n", counts.applied);
  ok(gp_patch_remove(session, ids[0]));

  /* Ask before the session is closed, which tells nobody. */
  char* missed = NULL;
  ok(gp_session_missed(session, &missed));
  printf("no run came by:\n%s\n", missed);
  gp_string_free(missed);
  gp_session_close(session);
  return 0;
}
