unit_tests += tests/unit/test-compare tests/unit/test-copy tests/unit/test-detect tests/unit/test-file tests/unit/test-nbd tests/unit/test-readahead tests/unit/test-window
thread_tests += tests/unit/test-compare tests/unit/test-copy tests/unit/test-nbd \
	tests/unit/test-readahead tests/unit/test-window

fake_image = tests/unit/fake-image.c tests/unit/fake-image.h
oracle = tests/unit/oracle.c tests/unit/oracle.h
scratch = tests/unit/scratch.c tests/unit/scratch.h
servers = tests/unit/servers.c tests/unit/servers.h

tests_unit_test_compare_SOURCES = tests/unit/test-compare.c $(fake_image)
tests_unit_test_compare_LDADD = $(unit_ldadd)

tests_unit_test_copy_SOURCES = tests/unit/test-copy.c $(fake_image)
tests_unit_test_copy_LDADD = $(unit_ldadd)

tests_unit_test_detect_SOURCES = tests/unit/test-detect.c $(fake_image)
tests_unit_test_detect_LDADD = $(unit_ldadd)

tests_unit_test_file_SOURCES = tests/unit/test-file.c $(oracle) $(scratch)
tests_unit_test_file_LDADD = $(unit_ldadd)

tests_unit_test_nbd_SOURCES = tests/unit/test-nbd.c $(oracle) $(servers)
tests_unit_test_nbd_LDADD = $(unit_ldadd)

tests_unit_test_readahead_SOURCES = tests/unit/test-readahead.c
tests_unit_test_readahead_LDADD = $(unit_ldadd)

tests_unit_test_window_SOURCES = tests/unit/test-window.c $(fake_image) $(oracle) $(scratch)
tests_unit_test_window_LDADD = $(unit_ldadd)
