if WITH_RBD
rbd_tests = \
	tests/integration/rbd-main.sh
TESTS += $(rbd_tests)
endif
EXTRA_DIST += tests/integration/rbd-main.sh tests/integration/ceph-functions.sh
