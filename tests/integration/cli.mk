cli_tests = \
	tests/integration/cli-bad-input.sh \
	tests/integration/cli-full-disk.sh \
	tests/integration/cli-hooks.sh \
	tests/integration/cli-interrupted.sh \
	tests/integration/cli-json.sh \
	tests/integration/cli-main.sh \
	tests/integration/cli-progress.sh \
	tests/integration/cli-unfinished.sh \
	tests/integration/export-device.sh \
	tests/integration/install.sh \
	tests/integration/main-clones.sh \
	tests/integration/main-disk.sh \
	tests/integration/main-many-clients.sh \
	tests/integration/main-second-root.sh \
	tests/integration/main-two-faces.sh \
	tests/integration/readme.sh \
	tests/integration/restore-live.sh \
	tests/integration/serve-ending.sh \
	tests/integration/serve-readahead.sh \
	tests/integration/serve-socket.sh \
	tests/integration/serve-tls.sh \
	tests/integration/serve-zeros.sh \
	tests/integration/volumes-reopen.sh
TESTS += $(cli_tests)
thread_tests += tests/integration/cli-interrupted.sh tests/integration/main-many-clients.sh \
	tests/integration/serve-readahead.sh
EXTRA_DIST += $(cli_tests)
