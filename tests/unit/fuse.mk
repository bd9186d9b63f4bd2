unit_tests += tests/unit/test-fuse-nodes tests/unit/test-fuse-options
tests_unit_test_fuse_nodes_SOURCES = tests/unit/test-fuse-nodes.c tests/unit/cmocka-all.h \
	fuse/nodes.c fuse/nodes.h
tests_unit_test_fuse_nodes_LDADD = $(unit_ldadd)

tests_unit_test_fuse_options_SOURCES = tests/unit/test-fuse-options.c tests/unit/cmocka-all.h \
	fuse/options.c fuse/options.h
tests_unit_test_fuse_options_CPPFLAGS = $(AM_CPPFLAGS) $(FUSE_CFLAGS)
tests_unit_test_fuse_options_LDADD = $(unit_ldadd) $(FUSE_LIBS)
