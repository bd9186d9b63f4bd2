core_libcowgate_la_SOURCES += \
	core/base/array.h \
	core/base/bulk.c core/base/bulk.h \
	core/base/bytes.c core/base/bytes.h \
	core/base/cleanup.h \
	core/base/error.c core/base/error.h \
	core/base/files.c core/base/files.h \
	core/base/name.c core/base/name.h \
	core/base/size.c core/base/size.h \
	core/base/workers.c core/base/workers.h
