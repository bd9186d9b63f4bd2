cli_tests = \
	tests/integration/cli-bad-input.sh \
	tests/integration/cli-full-disk.sh \
	tests/integration/cli-main.sh
TESTS += $(cli_tests)
EXTRA_DIST += $(cli_tests)
