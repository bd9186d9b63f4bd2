nbd_tests = \
	tests/integration/image-device.sh
TESTS += $(nbd_tests)
EXTRA_DIST += $(nbd_tests)
