# A fuzz target is one function over the bytes of one input; check runs it over its corpus, the folder
# of the same name.
fuzz_tests = tests/fuzz/fuzz-chunk \
	tests/fuzz/fuzz-control \
	tests/fuzz/fuzz-cowgate-json \
	tests/fuzz/fuzz-hold \
	tests/fuzz/fuzz-listing \
	tests/fuzz/fuzz-map \
	tests/fuzz/fuzz-map-states \
	tests/fuzz/fuzz-mark-key \
	tests/fuzz/fuzz-migration-header \
	tests/fuzz/fuzz-migration-json \
	tests/fuzz/fuzz-name \
	tests/fuzz/fuzz-page \
	tests/fuzz/fuzz-partition \
	tests/fuzz/fuzz-point \
	tests/fuzz/fuzz-project-json \
	tests/fuzz/fuzz-repository-json \
	tests/fuzz/fuzz-volume-json \
	tests/fuzz/fuzz-writer-record
check_PROGRAMS += $(fuzz_tests)
TESTS += $(fuzz_tests)

tests_fuzz_fuzz_chunk_SOURCES = tests/fuzz/fuzz-chunk.c tests/fuzz/corpus.c
tests_fuzz_fuzz_chunk_LDADD = core/libcowgate.la

tests_fuzz_fuzz_control_SOURCES = tests/fuzz/fuzz-control.c tests/fuzz/corpus.c
tests_fuzz_fuzz_control_LDADD = core/libcowgate.la

tests_fuzz_fuzz_cowgate_json_SOURCES = tests/fuzz/fuzz-cowgate-json.c tests/fuzz/corpus.c \
	core/rbd/settings.c
tests_fuzz_fuzz_cowgate_json_CPPFLAGS = $(AM_CPPFLAGS) # objects of its own
tests_fuzz_fuzz_cowgate_json_LDADD = core/libcowgate.la

tests_fuzz_fuzz_hold_SOURCES = tests/fuzz/fuzz-hold.c tests/fuzz/corpus.c
tests_fuzz_fuzz_hold_LDADD = core/libcowgate.la

tests_fuzz_fuzz_listing_SOURCES = tests/fuzz/fuzz-listing.c tests/fuzz/corpus.c
tests_fuzz_fuzz_listing_LDADD = core/libcowgate.la

tests_fuzz_fuzz_map_SOURCES = tests/fuzz/fuzz-map.c tests/fuzz/corpus.c
tests_fuzz_fuzz_map_LDADD = core/libcowgate.la

tests_fuzz_fuzz_map_states_SOURCES = tests/fuzz/fuzz-map-states.c tests/fuzz/corpus.c
tests_fuzz_fuzz_map_states_LDADD = core/libcowgate.la

tests_fuzz_fuzz_mark_key_SOURCES = tests/fuzz/fuzz-mark-key.c tests/fuzz/corpus.c \
	core/rbd/mark_key.c
tests_fuzz_fuzz_mark_key_CPPFLAGS = $(AM_CPPFLAGS) # objects of its own
tests_fuzz_fuzz_mark_key_LDADD = core/libcowgate.la

tests_fuzz_fuzz_migration_header_SOURCES = tests/fuzz/fuzz-migration-header.c tests/fuzz/corpus.c \
	core/rbd/migration_header.c
tests_fuzz_fuzz_migration_header_CPPFLAGS = $(AM_CPPFLAGS) # objects of its own
tests_fuzz_fuzz_migration_header_LDADD = core/libcowgate.la

tests_fuzz_fuzz_migration_json_SOURCES = tests/fuzz/fuzz-migration-json.c tests/fuzz/corpus.c
tests_fuzz_fuzz_migration_json_LDADD = core/libcowgate.la

tests_fuzz_fuzz_name_SOURCES = tests/fuzz/fuzz-name.c tests/fuzz/corpus.c
tests_fuzz_fuzz_name_LDADD = core/libcowgate.la

tests_fuzz_fuzz_page_SOURCES = tests/fuzz/fuzz-page.c tests/fuzz/corpus.c
tests_fuzz_fuzz_page_LDADD = core/libcowgate.la

tests_fuzz_fuzz_partition_SOURCES = tests/fuzz/fuzz-partition.c tests/fuzz/corpus.c
tests_fuzz_fuzz_partition_LDADD = core/libcowgate.la

tests_fuzz_fuzz_point_SOURCES = tests/fuzz/fuzz-point.c tests/fuzz/corpus.c
tests_fuzz_fuzz_point_LDADD = core/libcowgate.la

tests_fuzz_fuzz_project_json_SOURCES = tests/fuzz/fuzz-project-json.c tests/fuzz/corpus.c
tests_fuzz_fuzz_project_json_LDADD = core/libcowgate.la

tests_fuzz_fuzz_repository_json_SOURCES = tests/fuzz/fuzz-repository-json.c tests/fuzz/corpus.c
tests_fuzz_fuzz_repository_json_LDADD = core/libcowgate.la

tests_fuzz_fuzz_volume_json_SOURCES = tests/fuzz/fuzz-volume-json.c tests/fuzz/corpus.c
tests_fuzz_fuzz_volume_json_LDADD = core/libcowgate.la

tests_fuzz_fuzz_writer_record_SOURCES = tests/fuzz/fuzz-writer-record.c tests/fuzz/corpus.c
tests_fuzz_fuzz_writer_record_LDADD = core/libcowgate.la

EXTRA_DIST += tests/fuzz/chunk tests/fuzz/control tests/fuzz/cowgate-json tests/fuzz/hold tests/fuzz/listing \
	tests/fuzz/map tests/fuzz/map-states tests/fuzz/mark-key tests/fuzz/migration-header tests/fuzz/migration-json tests/fuzz/name tests/fuzz/page \
	tests/fuzz/partition tests/fuzz/point tests/fuzz/project-json tests/fuzz/repository-json tests/fuzz/volume-json \
	tests/fuzz/writer-record
