/* Inside the repository only: what its two files share. */
#ifndef CG_BACKUPS_PROJECT_H
#define CG_BACKUPS_PROJECT_H

#include "core/backups/repository.h"

#define CG_PROJECT_FILE "project.json"

struct cg_project {
    struct cg_repository *repo;
    char name[CG_PART_MAX + 1];
    struct cg_keys *keys;
    struct cg_project *next;
};

/* Reads the project's keys; makes project and keys if there are none and create is true. */
int cg_project_open(struct cg_repository *repo, const char *name, bool create,
                    struct cg_project **ret_project, struct cg_error *err);

/* 1 if there are points or objects of a project of that name, whether it has keys or not. */
int cg_project_used(struct cg_store *store, const char *name, struct cg_error *err);
void cg_project_free(struct cg_project *project);

#endif
