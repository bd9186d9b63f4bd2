# Unit tests are cmocka programs, integration tests shell scripts over real clients; each runs by
# ./run, which sets the paths to what was built.
TEST_EXTENSIONS = .sh
LOG_COMPILER = $(srcdir)/tests/limited 1800 ./run
SH_LOG_COMPILER = $(srcdir)/tests/limited 900 ./run bash
AM_TESTS_ENVIRONMENT = RUN_VALGRIND='$(RUN_VALGRIND)'; export RUN_VALGRIND;

unit_tests =
thread_tests = # those with many threads, for check-threads
unit_ldadd = core/libcowgate.la $(CMOCKA_LIBS)

EXTRA_DIST += tests/functions.sh tests/limited tests/vm-functions.sh tests/vm-guest.sh tests/nbdkit-sanitized tests/valgrind.supp tests/lsan.supp tests/tsan.supp

include tests/fuzz/local.mk
check_LTLIBRARIES += tests/no-freelocale.la
tests_no_freelocale_la_SOURCES = tests/no-freelocale.c
tests_no_freelocale_la_CFLAGS = -std=gnu17 -D_GNU_SOURCE
tests_no_freelocale_la_LDFLAGS = -module -avoid-version -shared -rpath /nowhere

include tests/unit/local.mk
include tests/unit/volumes.mk
include tests/unit/backups.mk
include tests/unit/image.mk
include tests/unit/fuse.mk
include tests/unit/migration.mk
include tests/unit/rbd.mk
include tests/integration/nbd.mk
include tests/integration/rbd.mk
include tests/integration/fuse.mk
include tests/integration/volumes.mk
include tests/integration/backups.mk
include tests/integration/cli.mk
include tests/integration/vm.mk

if HAVE_CMOCKA
check_PROGRAMS += $(unit_tests)
TESTS += $(unit_tests)
endif
