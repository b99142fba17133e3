/* The folders that are a child's own, though the template was started with others. */
#ifndef LDS_FOLDERS_H
#define LDS_FOLDERS_H

#include <stdbool.h>

#include "message.h"

/* Notes the folders in the variables that the process came with, and opens DENO_DIR if
 * each child has its own. `alias`: a path that is to lead each child into its
 * private folder, refused if it cannot; NULL: none is wanted. */
void prepare_folders(char **variables, bool has_own_cache, const char *alias,
                     struct refusal *why);

/* The number at which Deno finds its cache; -1: it is not opened. */
int cache_descriptor(void);

/* The number that the alias leads through; -1: there is none. */
int private_descriptor(void);

/* Called with each variable that is asked for: returns what to say in its place, NULL if
 * that is its value. */
char *stand_in_for(const char *name, const char *value, bool is_template,
                   bool has_input);

/* Changes a path that leads into the cache, or into the private folder if that has an
 * alias, into one that does so in each child. */
void keep_paths(char *resolved);

/* True for the link in the alias. */
bool is_link_in_alias(const char *path);

/* False if the module has left something in its folder, has something open there, or has
 * made it the current one: the folder of a child is another, or has been made anew. */
bool is_folder_as_given(struct refusal *why);

/* False if a child cannot have these folders in the place of the template's. */
bool check_folders(const struct request *request, int cache, struct refusal *why);

/* In a child. `cache`: its folder, which is closed here; -1: it has the template's. */
bool take_folders(const struct request *request, int cache, struct refusal *why);

#endif
