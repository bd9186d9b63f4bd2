if WITH_RBD
rbd_tests = \
	tests/integration/rbd-backup.sh \
	tests/integration/rbd-backup-full.sh \
	tests/integration/rbd-main.sh
TESTS += $(rbd_tests)
endif
EXTRA_DIST += tests/integration/rbd-main.sh tests/integration/rbd-backup-full.sh tests/integration/rbd-backup.sh \
	tests/integration/ceph-functions.sh tests/integration/rbd-write.py
