fuse_tests = \
	tests/integration/fuse-direct.sh \
	tests/integration/fuse-filesystems.sh \
	tests/integration/fuse-holes.sh \
	tests/integration/fuse-interrupted.sh \
	tests/integration/fuse-kill.sh \
	tests/integration/fuse-mounting.sh \
	tests/integration/fuse-requests.sh \
	tests/integration/fuse-sharing.sh \
	tests/integration/fuse-tree.sh
TESTS += $(fuse_tests)
thread_tests += tests/integration/fuse-sharing.sh
EXTRA_DIST += $(fuse_tests) tests/integration/fuse-functions.sh
