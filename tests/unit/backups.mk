unit_tests += tests/unit/test-backup tests/unit/test-objects

backup_lab = tests/unit/backup-lab.c tests/unit/backup-lab.h tests/unit/fake-space.c \
	tests/unit/fake-space.h tests/unit/fake-image.h

tests_unit_test_backup_SOURCES = tests/unit/test-backup.c $(backup_lab)
tests_unit_test_backup_LDADD = $(unit_ldadd)

tests_unit_test_objects_SOURCES = tests/unit/test-objects.c
tests_unit_test_objects_LDADD = $(unit_ldadd)
