rbd_scripts = \
	tests/integration/rbd-backup-full.sh \
	tests/integration/rbd-backup.sh \
	tests/integration/rbd-chain.sh \
	tests/integration/rbd-changes.sh \
	tests/integration/rbd-clones.sh \
	tests/integration/rbd-copies.sh \
	tests/integration/rbd-errors.sh \
	tests/integration/rbd-export-diff.sh \
	tests/integration/rbd-extents.sh \
	tests/integration/rbd-faults.sh \
	tests/integration/rbd-io.sh \
	tests/integration/rbd-main.sh \
	tests/integration/rbd-migrate-clusters.sh \
	tests/integration/rbd-migrate-history.sh \
	tests/integration/rbd-migrate-errors.sh \
	tests/integration/rbd-migrate-faults.sh \
	tests/integration/rbd-migrate-kill.sh \
	tests/integration/rbd-migrate-luks.sh \
	tests/integration/rbd-migrate-snapshots.sh \
	tests/integration/rbd-migrate-sources.sh \
	tests/integration/rbd-migrate-spec.sh \
	tests/integration/rbd-migrate-tls.sh \
	tests/integration/rbd-migrate.sh \
	tests/integration/rbd-outage.sh \
	tests/integration/rbd-readahead.sh \
	tests/integration/rbd-restore-live.sh \
	tests/integration/rbd-readme.sh \
	tests/integration/rbd-restore.sh \
	tests/integration/rbd-settings.sh
if WITH_RBD
TESTS += $(rbd_scripts)
thread_tests += tests/integration/rbd-io.sh
endif
EXTRA_DIST += $(rbd_scripts) tests/integration/ceph-functions.sh tests/integration/rbd-write.py \
	tests/integration/rbd-extents.py \
	tests/integration/rbd-functions.sh tests/integration/rbd-migrate-functions.sh tests/integration/rbd-writers.py
