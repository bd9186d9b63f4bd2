# A fuzz target is one function over the bytes of one input; check runs it over its corpus.
fuzz_tests = tests/fuzz/fuzz-partition
check_PROGRAMS += $(fuzz_tests)
TESTS += $(fuzz_tests)

tests_fuzz_fuzz_partition_SOURCES = tests/fuzz/fuzz-partition.c tests/fuzz/corpus.c
tests_fuzz_fuzz_partition_CPPFLAGS = $(AM_CPPFLAGS) -DFUZZ_CORPUS='"partition"'
tests_fuzz_fuzz_partition_LDADD = core/libcowgate.la

EXTRA_DIST += tests/fuzz/partition

fuzz_backups = tests/fuzz/fuzz-chunk tests/fuzz/fuzz-page tests/fuzz/fuzz-point \
	tests/fuzz/fuzz-project-json
check_PROGRAMS += $(fuzz_backups)
TESTS += $(fuzz_backups)

tests_fuzz_fuzz_chunk_SOURCES = tests/fuzz/fuzz-chunk.c tests/fuzz/corpus.c
tests_fuzz_fuzz_chunk_CPPFLAGS = $(AM_CPPFLAGS) -DFUZZ_CORPUS='"chunk"'
tests_fuzz_fuzz_chunk_LDADD = core/libcowgate.la

tests_fuzz_fuzz_page_SOURCES = tests/fuzz/fuzz-page.c tests/fuzz/corpus.c
tests_fuzz_fuzz_page_CPPFLAGS = $(AM_CPPFLAGS) -DFUZZ_CORPUS='"page"'
tests_fuzz_fuzz_page_LDADD = core/libcowgate.la

tests_fuzz_fuzz_point_SOURCES = tests/fuzz/fuzz-point.c tests/fuzz/corpus.c
tests_fuzz_fuzz_point_CPPFLAGS = $(AM_CPPFLAGS) -DFUZZ_CORPUS='"point"'
tests_fuzz_fuzz_point_LDADD = core/libcowgate.la

tests_fuzz_fuzz_project_json_SOURCES = tests/fuzz/fuzz-project-json.c tests/fuzz/corpus.c
tests_fuzz_fuzz_project_json_CPPFLAGS = $(AM_CPPFLAGS) -DFUZZ_CORPUS='"project-json"'
tests_fuzz_fuzz_project_json_LDADD = core/libcowgate.la

EXTRA_DIST += tests/fuzz/chunk tests/fuzz/page tests/fuzz/point tests/fuzz/project-json

fuzz_volumes = tests/fuzz/fuzz-map tests/fuzz/fuzz-volume-json
check_PROGRAMS += $(fuzz_volumes)
TESTS += $(fuzz_volumes)

tests_fuzz_fuzz_map_SOURCES = tests/fuzz/fuzz-map.c tests/fuzz/corpus.c
tests_fuzz_fuzz_map_CPPFLAGS = $(AM_CPPFLAGS) -DFUZZ_CORPUS='"map"'
tests_fuzz_fuzz_map_LDADD = core/libcowgate.la

tests_fuzz_fuzz_volume_json_SOURCES = tests/fuzz/fuzz-volume-json.c tests/fuzz/corpus.c
tests_fuzz_fuzz_volume_json_CPPFLAGS = $(AM_CPPFLAGS) -DFUZZ_CORPUS='"volume-json"'
tests_fuzz_fuzz_volume_json_LDADD = core/libcowgate.la

EXTRA_DIST += tests/fuzz/map tests/fuzz/volume-json
