core_libcowgate_la_SOURCES += \
	core/image/extents.c \
	core/image/image.c core/image/image.h \
	core/image/file.h core/image/nbd.h core/image/window.h
