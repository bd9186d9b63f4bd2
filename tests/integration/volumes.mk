volumes_scripts = tests/integration/volumes-full.sh tests/integration/volumes-killed-server.sh \
	tests/integration/volumes-live.sh tests/integration/volumes-moment.sh \
	tests/integration/volumes-pool.sh
TESTS += $(volumes_scripts)
thread_tests += tests/integration/volumes-killed-server.sh
EXTRA_DIST += $(volumes_scripts)

check_PROGRAMS += tests/integration/volumes-client
tests_integration_volumes_client_SOURCES = tests/integration/volumes-client.c
tests_integration_volumes_client_LDADD = $(LIBNBD_LIBS)

TESTS += tests/integration/volumes-merge.sh tests/integration/volumes-flatten.sh
EXTRA_DIST += tests/integration/volumes-merge.sh tests/integration/volumes-flatten.sh
