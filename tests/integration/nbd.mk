nbd_tests = \
	tests/integration/image-device.sh \
	tests/integration/nbd-dead-clients.sh \
	tests/integration/nbd-io.sh \
	tests/integration/nbd-kill.sh \
	tests/integration/nbd-moment.sh \
	tests/integration/nbd-names.sh \
	tests/integration/nbd-qcow2.sh \
	tests/integration/nbd-only.sh
TESTS += $(nbd_tests)
thread_tests += tests/integration/nbd-io.sh tests/integration/nbd-kill.sh \
	tests/integration/nbd-moment.sh
EXTRA_DIST += $(nbd_tests) tests/integration/nbd-kill-client.py
