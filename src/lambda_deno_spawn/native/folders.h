/* The folders that are a child's own, though the template was started with others. */
#ifndef LDS_FOLDERS_H
#define LDS_FOLDERS_H

#include <stdbool.h>

#include "message.h"

/* Notes the folders in the variables that the process came with, and opens DENO_DIR if
 * each child has its own. */
void prepare_folders(char **variables, bool has_own_cache);

/* The number at which Deno finds its cache; -1: it is not opened. */
int cache_descriptor(void);

/* Called with each variable that is asked for: returns what to say in its place, NULL if
 * that is the variable's own value. */
char *stand_in_for(const char *name, bool has_input);

/* Changes a path that leads into the cache into one that does so in each child. */
void keep_cache_path(char *resolved);

/* False if a child cannot have these folders in the place of the template's. */
bool check_folders(const struct request *request, int cache, struct refusal *why);

/* In a child. `cache`: its folder, which is closed here; -1: it has the template's. */
bool take_folders(const struct request *request, int cache, struct refusal *why);

#endif
