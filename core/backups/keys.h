/* A project's keys: what makes its ids its own and its points unforgeable. */
#ifndef CG_BACKUPS_KEYS_H
#define CG_BACKUPS_KEYS_H

#include "core/backups/object.h"

struct cg_keys;

#define CG_KEYS_MAC 32

/* The content of a new project.json with a random master key; the caller frees it (it is secret:
 * cg_keys_text_free).  -ENOMEM. */
int cg_keys_generate(const char *project, char **ret_text, struct cg_error *err);
void cg_keys_text_free(char *text);

/* Reads a project.json, which must be that of project.  Returns 0; -EIO: damaged or of another
 * project; -ENOTSUP: of a later format, or wrapped in a way that this version doesn't know. */
int cg_keys_parse(const char *project, const char *text, size_t len, struct cg_keys **ret_keys,
                  struct cg_error *err);

/* Wipes.  NULL is fine. */
void cg_keys_free(struct cg_keys *keys);

/* HMAC-SHA256 by the id key of kind, length and content: the same for equal content in this
 * project, and nothing to anyone else.  -ENOMEM.  Any thread. */
int cg_keys_object_id(struct cg_keys *keys, enum cg_object_kind kind, const void *plain, size_t len,
                      uint8_t ret_id[static CG_OBJECT_ID], struct cg_error *err);

/* HMAC-SHA256 of a point's first line by the point key.  -ENOMEM.  Any thread. */
int cg_keys_point_mac(struct cg_keys *keys, const void *line, size_t len,
                      uint8_t ret_mac[static CG_KEYS_MAC], struct cg_error *err);

#endif
