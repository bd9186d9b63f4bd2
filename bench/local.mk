EXTRA_DIST += \
	bench/ceph.py \
	bench/ceph.sh \
	bench/content.py \
	bench/fio.py \
	bench/harness.py \
	bench/main.py \
	bench/plot.py \
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

# Built, but not installed: bench/run clone calls it.
noinst_PROGRAMS = bench/inside
bench_inside_SOURCES = bench/inside.c
bench_inside_LDADD = core/libcowgate.la
