# A fuzz target is one function over the bytes of one input; check runs it over its corpus.
fuzz_tests = tests/fuzz/fuzz-partition
check_PROGRAMS += $(fuzz_tests)
TESTS += $(fuzz_tests)

tests_fuzz_fuzz_partition_SOURCES = tests/fuzz/fuzz-partition.c tests/fuzz/corpus.c
tests_fuzz_fuzz_partition_CPPFLAGS = $(AM_CPPFLAGS) -DFUZZ_CORPUS='"partition"'
tests_fuzz_fuzz_partition_LDADD = core/libcowgate.la

EXTRA_DIST += tests/fuzz/partition
