noinst_LTLIBRARIES += core/libcowgate.la
core_libcowgate_la_SOURCES = core/space.c core/space.h core/gateway.c core/gateway.h \
	core/listing.c core/root.c core/root.h
core_libcowgate_la_LIBADD = $(JANSSON_LIBS) $(ZSTD_LIBS) $(CRYPTO_LIBS) $(ISAL_LIBS) \
	$(BLKID_LIBS) $(LIBNBD_LIBS)
