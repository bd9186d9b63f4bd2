EXTRA_DIST += \
	bench/ceph.py \
	bench/ceph.sh \
	bench/content.py \
	bench/fio.py \
	bench/harness.py \
	bench/main.py \
	bench/run \
	bench/section_backup.py \
	bench/section_clone.py \
	bench/section_first_byte.py \
	bench/section_fuse.py \
	bench/section_incremental.py \
	bench/section_migrate.py \
	bench/section_nbd.py \
	bench/section_rbd.py \
	bench/servers.py
