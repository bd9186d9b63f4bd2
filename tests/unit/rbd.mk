if WITH_RBD
unit_tests += tests/unit/test-rbd-hold tests/unit/test-rbd-opens
thread_tests += tests/unit/test-rbd-hold tests/unit/test-rbd-opens

tests_unit_test_rbd_hold_SOURCES = tests/unit/test-rbd-hold.c core/rbd/hold.c core/rbd/marks.c \
	core/rbd/mark_key.c
tests_unit_test_rbd_hold_CFLAGS = $(AM_CFLAGS)
tests_unit_test_rbd_hold_LDADD = $(unit_ldadd)

tests_unit_test_rbd_opens_SOURCES = tests/unit/test-rbd-opens.c core/rbd/opens.c
tests_unit_test_rbd_opens_CFLAGS = $(AM_CFLAGS)
tests_unit_test_rbd_opens_LDADD = $(unit_ldadd)
endif
