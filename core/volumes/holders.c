#include "config.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "core/base/cleanup.h"
#include "core/volumes/holders.h"

#define HOLDERS 8 /* that are told */

static void add(long pid, char *ret, size_t size)
{
    char path[64], program[64] = "";
    size_t len = strlen(ret);

    snprintf(path, sizeof path, "/proc/%ld/comm", pid);
    FILE *f = fopen(path, "re");
    if (f) {
        if (!fgets(program, sizeof program, f))
            program[0] = '\0';
        fclose(f);
    }
    program[strcspn(program, "\n")] = '\0';
    snprintf(ret + len, size - len, "%sprocess %ld%s%s%s", len ? ", " : "", pid,
             *program ? " (" : "", program, *program ? ")" : "");
}

/* The pid in a line about a flock of the file; 0 for any other. */
static long holder_in(const char *line, const struct stat *st)
{
    unsigned long long inode;
    unsigned maj, min;
    long pid;

    if (sscanf(line, "%*d: FLOCK %*s %*s %ld %x:%x:%llu", &pid, &maj, &min, &inode) != 4)
        return 0;
    return inode == st->st_ino && maj == major(st->st_dev) && min == minor(st->st_dev) ? pid : 0;
}

void cg_holders(int fd, char *ret, size_t size)
{
    CG_CLEANUP(cg_free) char *line = NULL;
    size_t room = 0, count = 0;
    long seen[HOLDERS];
    struct stat st;

    ret[0] = '\0';
    FILE *f = fstat(fd, &st) == 0 ? fopen("/proc/locks", "re") : NULL;
    while (f && count < HOLDERS && getline(&line, &room, f) > 0) {
        long pid = holder_in(line, &st);
        bool known = pid <= 0;
        for (size_t i = 0; i < count; i++)
            known = known || seen[i] == pid;
        if (known)
            continue;
        seen[count++] = pid;
        add(pid, ret, size);
    }
    if (f)
        fclose(f);
    if (count == 0)
        snprintf(ret, size, "another process");
}
