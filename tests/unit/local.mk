unit_tests += tests/unit/test-base tests/unit/test-bulk tests/unit/test-name
thread_tests += tests/unit/test-base tests/unit/test-bulk

tests_unit_test_base_SOURCES = tests/unit/test-base.c tests/unit/cmocka-all.h
tests_unit_test_base_LDADD = $(unit_ldadd)

tests_unit_test_bulk_SOURCES = tests/unit/test-bulk.c tests/unit/cmocka-all.h
tests_unit_test_bulk_LDADD = $(unit_ldadd)

tests_unit_test_name_SOURCES = tests/unit/test-name.c
tests_unit_test_name_LDADD = $(unit_ldadd)
