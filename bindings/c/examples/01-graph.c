/* 01: reads a saved graph: prints its first tree, the nodes that fit a pattern, and whether a patch may stand at a
 * path.
 *
 *   01-graph GRAPH.json [PATTERN [PATH]]
 *
 * Every call that may fail returns a status; the message of the last failure on this thread is gp_last_error().
 */
#include <graphpatch.h>
#include <stdio.h>

static int failed(const char* what) {
  fprintf(stderr, "01-graph: %s: %s\n", what, gp_last_error());
  return 1;
}

/* Prints a text that the library has made, and gives it back. */
static void show(char* text) {
  fputs(text, stdout);
  gp_string_free(text);
}

static int find(const gp_graphs* graphs, const char* pattern) {
  char* text = NULL;
  if (gp_graphs_search(graphs, 0, pattern, NULL, NULL, NULL, &text) != GP_STATUS_OK)
    return failed(pattern);
  printf("\n%s:\n", pattern);
  show(text);
  putchar('\n');
  return 0;
}

static int check(const gp_graphs* graphs, const char* path) {
  /* The message names every bad path, with the nearest ones that are there. */
  if (gp_graphs_check(graphs, &path, 1) != GP_STATUS_OK)
    return failed(path);
  printf("\na patch may stand at %s\n", path);
  return 0;
}

int main(int argc, char** argv) {
  if (argc < 2) {
    fputs("usage: graph GRAPH.json [PATTERN [PATH]]\n", stderr);
    return 2;
  }
  gp_graphs* graphs = NULL;
  char* tree = NULL;
  if (gp_graphs_load(argv[1], &graphs) != GP_STATUS_OK)
    return failed("load");
  int bad = 0;
  if (gp_graphs_tree(graphs, 0, NULL, &tree) == GP_STATUS_OK)
    show(tree);
  else
    bad = failed("tree");
  if (!bad && argc > 2)
    bad = find(graphs, argv[2]);
  if (!bad && argc > 3)
    bad = check(graphs, argv[3]);
  gp_graphs_free(graphs);
  return bad;
}
