unit_tests += tests/unit/test-backup tests/unit/test-objects \
	tests/unit/test-backup-faults tests/unit/test-restore tests/unit/test-damage \
	tests/unit/test-session tests/unit/test-leftovers tests/unit/test-cache \
	tests/unit/test-export-diff tests/unit/test-point-image
thread_tests += tests/unit/test-cache tests/unit/test-damage tests/unit/test-export-diff \
	tests/unit/test-point-image tests/unit/test-session

backup_lab = tests/unit/backup-lab.c tests/unit/backup-lab.h tests/unit/fake-space.c \
	tests/unit/fake-space.h tests/unit/fake-image.h

tests_unit_test_backup_SOURCES = tests/unit/test-backup.c $(backup_lab)
tests_unit_test_backup_LDADD = $(unit_ldadd)

tests_unit_test_objects_SOURCES = tests/unit/test-objects.c
tests_unit_test_objects_LDADD = $(unit_ldadd)

tests_unit_test_backup_faults_SOURCES = tests/unit/test-backup-faults.c $(backup_lab) \
	tests/unit/fault-store.c tests/unit/fault-store.h
tests_unit_test_backup_faults_LDADD = $(unit_ldadd)

tests_unit_test_restore_SOURCES = tests/unit/test-restore.c $(backup_lab) tests/unit/fake-image.c
tests_unit_test_restore_LDADD = $(unit_ldadd)

tests_unit_test_damage_SOURCES = tests/unit/test-damage.c $(backup_lab)
tests_unit_test_damage_LDADD = $(unit_ldadd)

tests_unit_test_session_SOURCES = tests/unit/test-session.c $(backup_lab) \
	tests/unit/fault-store.c tests/unit/fault-store.h
tests_unit_test_session_LDADD = $(unit_ldadd)

tests_unit_test_leftovers_SOURCES = tests/unit/test-leftovers.c $(backup_lab)
tests_unit_test_leftovers_LDADD = $(unit_ldadd)

tests_unit_test_cache_SOURCES = tests/unit/test-cache.c
tests_unit_test_cache_LDADD = $(unit_ldadd)

tests_unit_test_export_diff_SOURCES = tests/unit/test-export-diff.c $(backup_lab)
tests_unit_test_export_diff_LDADD = $(unit_ldadd)

tests_unit_test_point_image_SOURCES = tests/unit/test-point-image.c $(backup_lab)
tests_unit_test_point_image_LDADD = $(unit_ldadd)
