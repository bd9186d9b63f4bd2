/* Runs a fuzz target over its corpus, or over the files given.  The corpus of fuzz-X is X. */
#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/cleanup.h"
#include "core/base/files.h"

#define INPUT_MAX (16 << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void run_file(const char *path)
{
    struct cg_error err;
    CG_CLEANUP(cg_free) char *buf = NULL;
    size_t len;

    if (cg_file_read(AT_FDCWD, path, INPUT_MAX, &buf, &len, &err) < 0) {
        fprintf(stderr, "%s\n", err.message);
        exit(1);
    }
    fprintf(stderr, "%s\n", path); /* the last one named is the one that crashed */
    LLVMFuzzerTestOneInput((const uint8_t *)buf, len);
}

static int run_corpus(const char *directory)
{
    DIR *dir = opendir(directory);
    struct dirent *e;
    char path[4096 + 257];
    int count = 0;

    while (dir && (e = readdir(dir))) {
        if (e->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", directory, e->d_name);
        run_file(path);
        count++;
    }
    if (dir)
        closedir(dir);
    return count;
}

int main(int argc, char **argv)
{
    const char *src = getenv("abs_srcdir");
    const char *target =
        strstr(program_invocation_short_name, "fuzz-"); /* behind libtool's "lt-" */
    char directory[4096];

    for (int i = 1; i < argc; i++)
        run_file(argv[i]);
    if (argc > 1)
        return 0;
    snprintf(directory, sizeof directory, "%s/tests/fuzz/%s", src ? src : ".",
             target ? target + strlen("fuzz-") : "");
    if (run_corpus(directory) == 0) {
        fprintf(stderr, "%s is empty\n", directory);
        return 1;
    }
    return 0;
}
