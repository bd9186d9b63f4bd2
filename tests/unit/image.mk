unit_tests += tests/unit/test-copy

fake_image = tests/unit/fake-image.c tests/unit/fake-image.h

tests_unit_test_copy_SOURCES = tests/unit/test-copy.c $(fake_image)
tests_unit_test_copy_LDADD = $(unit_ldadd)
