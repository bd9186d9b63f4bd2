unit_tests += tests/unit/test-migration

tests_unit_test_migration_SOURCES = tests/unit/test-migration.c tests/unit/scratch.c \
	tests/unit/scratch.h
tests_unit_test_migration_LDADD = $(unit_ldadd)
