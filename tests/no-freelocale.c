/* Preloaded into nbdkit together with a sanitizer's runtime, which leaves glibc's lock around
 * locales one unlock ahead of its locks: the destructor of a library that nbdkit uses frees a
 * locale when the process exits, and would wait for that lock for ever. */
#include <locale.h>

void freelocale(locale_t locale)
{
    (void)locale;
}
