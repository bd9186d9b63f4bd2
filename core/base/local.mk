noinst_LTLIBRARIES += core/libcowgate-base.la
core_libcowgate_base_la_SOURCES = core/space.c core/space.h \
	core/base/array.h \
	core/base/bulk.c core/base/bulk.h \
	core/base/bytes.c core/base/bytes.h \
	core/base/cleanup.h \
	core/base/error.c core/base/error.h \
	core/base/files.c core/base/files.h \
	core/base/json.h \
	core/base/name.c core/base/name.h \
	core/base/pace.c core/base/pace.h \
	core/base/size.c core/base/size.h \
	core/base/workers.c core/base/workers.h
core_libcowgate_base_la_LIBADD = $(JANSSON_LIBS) $(ISAL_LIBS) $(BLKID_LIBS) $(LIBNBD_LIBS)
