backup_scripts = \
	tests/integration/backup-damage.sh \
	tests/integration/backup-history.sh \
	tests/integration/backup-increment.sh \
	tests/integration/backup-killed.sh
TESTS += $(backup_scripts)
EXTRA_DIST += $(backup_scripts) tests/integration/history-functions.sh
