unit_tests += tests/unit/test-volumes tests/unit/test-volumes-oracle \
	tests/unit/test-volumes-crash tests/unit/test-volumes-processes \
	tests/unit/test-volumes-faults tests/unit/test-volumes-holds tests/unit/test-volumes-flush \
	tests/unit/test-volumes-meanwhile tests/unit/test-volumes-fill \
	tests/unit/test-volumes-control tests/unit/test-volumes-index tests/unit/test-volumes-map \
	tests/unit/test-volumes-moment tests/unit/test-volumes-together
thread_tests += tests/unit/test-volumes-control tests/unit/test-volumes-fill tests/unit/test-volumes-flush \
	tests/unit/test-volumes-holds tests/unit/test-volumes-index tests/unit/test-volumes-map \
	tests/unit/test-volumes-meanwhile tests/unit/test-volumes-moment \
	tests/unit/test-volumes-processes

volumes_pool = tests/unit/volumes-pool.c tests/unit/volumes-pool.h
one_pool = tests/unit/one-pool.c tests/unit/one-pool.h $(volumes_pool)

tests_unit_test_volumes_SOURCES = tests/unit/test-volumes.c $(one_pool)
tests_unit_test_volumes_LDADD = $(unit_ldadd)

tests_unit_test_volumes_oracle_SOURCES = tests/unit/test-volumes-oracle.c $(volumes_pool)
tests_unit_test_volumes_oracle_LDADD = $(unit_ldadd)

tests_unit_test_volumes_crash_SOURCES = tests/unit/test-volumes-crash.c $(volumes_pool) \
	tests/unit/crash-model.c tests/unit/crash-model.h \
	tests/unit/recorder.c tests/unit/recorder.h tests/unit/recorder-replay.c tests/unit/recorder-log.h
tests_unit_test_volumes_crash_LDADD = $(unit_ldadd)
tests_unit_test_volumes_crash_LDFLAGS = $(AM_LDFLAGS) \
	-Wl,--wrap=pwrite,--wrap=pwritev,--wrap=fdatasync,--wrap=fsync,--wrap=fallocate \
	-Wl,--wrap=ftruncate,--wrap=openat,--wrap=mkdirat,--wrap=linkat,--wrap=renameat \
	-Wl,--wrap=renameat2,--wrap=unlinkat

tests_unit_test_volumes_flush_SOURCES = $(volumes_pool) tests/unit/test-volumes-flush.c \
	tests/unit/recorder.c tests/unit/recorder.h tests/unit/recorder-replay.c tests/unit/recorder-log.h
tests_unit_test_volumes_flush_LDADD = $(unit_ldadd)
tests_unit_test_volumes_flush_LDFLAGS = $(tests_unit_test_volumes_crash_LDFLAGS)

tests_unit_test_volumes_processes_SOURCES = tests/unit/test-volumes-processes.c $(one_pool)
tests_unit_test_volumes_processes_LDADD = $(unit_ldadd)

tests_unit_test_volumes_map_SOURCES = tests/unit/test-volumes-map.c tests/unit/scratch.c \
	tests/unit/scratch.h
tests_unit_test_volumes_map_LDADD = $(unit_ldadd)

tests_unit_test_volumes_index_SOURCES = tests/unit/test-volumes-index.c \
	tests/unit/scratch.c tests/unit/scratch.h
tests_unit_test_volumes_index_LDADD = $(unit_ldadd)

tests_unit_test_volumes_control_SOURCES = tests/unit/test-volumes-control.c
tests_unit_test_volumes_control_LDADD = $(unit_ldadd)

volumes_faults = tests/unit/volumes-faults.c tests/unit/volumes-faults.h $(one_pool)
volumes_faults_ldflags = \
	-Wl,--wrap=fdatasync,--wrap=fsync,--wrap=fallocate,--wrap=unlink,--wrap=pread,--wrap=pwrite,--wrap=linkat \
	-Wl,--wrap=ftruncate,--wrap=pthread_rwlock_rdlock,--wrap=renameat,--wrap=renameat2 \
	-Wl,--wrap=unlinkat,--wrap=flock,--wrap=send,--wrap=fstatvfs

tests_unit_test_volumes_faults_SOURCES = tests/unit/test-volumes-faults.c $(volumes_faults)
tests_unit_test_volumes_faults_LDADD = $(unit_ldadd)
tests_unit_test_volumes_faults_LDFLAGS = $(AM_LDFLAGS) $(volumes_faults_ldflags)

tests_unit_test_volumes_meanwhile_SOURCES = tests/unit/test-volumes-meanwhile.c $(volumes_faults)
tests_unit_test_volumes_meanwhile_LDADD = $(unit_ldadd)
tests_unit_test_volumes_meanwhile_LDFLAGS = $(AM_LDFLAGS) $(volumes_faults_ldflags)

tests_unit_test_volumes_fill_SOURCES = tests/unit/test-volumes-fill.c $(volumes_faults)
tests_unit_test_volumes_fill_LDADD = $(unit_ldadd)
tests_unit_test_volumes_fill_LDFLAGS = $(AM_LDFLAGS) $(volumes_faults_ldflags)

tests_unit_test_volumes_holds_SOURCES = tests/unit/test-volumes-holds.c $(volumes_faults)
tests_unit_test_volumes_holds_LDADD = $(unit_ldadd)
tests_unit_test_volumes_holds_LDFLAGS = $(AM_LDFLAGS) $(volumes_faults_ldflags)

tests_unit_test_volumes_moment_SOURCES = tests/unit/test-volumes-moment.c $(volumes_faults)
tests_unit_test_volumes_moment_LDADD = $(unit_ldadd)
tests_unit_test_volumes_moment_LDFLAGS = $(AM_LDFLAGS) $(volumes_faults_ldflags)

volumes_merging = tests/unit/volumes-merging.c tests/unit/volumes-merging.h $(volumes_faults)
unit_tests += tests/unit/test-volumes-merge tests/unit/test-volumes-merge-beside
thread_tests += tests/unit/test-volumes-merge tests/unit/test-volumes-merge-beside
tests_unit_test_volumes_merge_beside_SOURCES = tests/unit/test-volumes-merge-beside.c $(volumes_merging)
tests_unit_test_volumes_merge_beside_LDADD = $(unit_ldadd)
tests_unit_test_volumes_merge_beside_LDFLAGS = $(AM_LDFLAGS) $(volumes_faults_ldflags)
tests_unit_test_volumes_merge_SOURCES = tests/unit/test-volumes-merge.c $(volumes_merging)
tests_unit_test_volumes_merge_LDADD = $(unit_ldadd)
tests_unit_test_volumes_merge_LDFLAGS = $(AM_LDFLAGS) $(volumes_faults_ldflags)

unit_tests += tests/unit/test-volumes-sequences
tests_unit_test_volumes_sequences_SOURCES = tests/unit/test-volumes-sequences.c $(volumes_pool) \
	tests/unit/crash-model.c tests/unit/crash-model.h \
	tests/unit/recorder.c tests/unit/recorder.h tests/unit/recorder-replay.c tests/unit/recorder-log.h
tests_unit_test_volumes_sequences_LDADD = $(unit_ldadd)
tests_unit_test_volumes_sequences_LDFLAGS = $(tests_unit_test_volumes_crash_LDFLAGS)

tests_unit_test_volumes_together_SOURCES = tests/unit/test-volumes-together.c $(volumes_faults)
tests_unit_test_volumes_together_LDADD = $(unit_ldadd)
tests_unit_test_volumes_together_LDFLAGS = $(AM_LDFLAGS) $(volumes_faults_ldflags)

unit_tests += tests/unit/test-volumes-gather
thread_tests += tests/unit/test-volumes-gather
tests_unit_test_volumes_gather_SOURCES = tests/unit/test-volumes-gather.c $(volumes_faults)
tests_unit_test_volumes_gather_LDADD = $(unit_ldadd)
tests_unit_test_volumes_gather_LDFLAGS = $(AM_LDFLAGS) $(volumes_faults_ldflags)
