noinst_LTLIBRARIES += core/libcowgate.la
core_libcowgate_la_SOURCES = core/gateway.c core/gateway.h \
	core/listing.c core/module.c core/module.h core/pool_spare.c core/pool_spare.h core/pool_watch.c core/pool_watch.h core/root.c core/root.h
core_libcowgate_la_CPPFLAGS = $(AM_CPPFLAGS) -DPKGLIBDIR='"$(pkglibdir)"'
core_libcowgate_la_LIBADD = core/libcowgate-base.la $(ZSTD_LIBS) $(CRYPTO_LIBS)
