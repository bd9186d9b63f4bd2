/* cmocka with the headers that it wants before it. */
#ifndef CG_TESTS_CMOCKA_ALL_H
#define CG_TESTS_CMOCKA_ALL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* cmocka 2 has other names for these, and warns: do without. */
#undef assert_in_range
#undef assert_not_in_range

#endif
