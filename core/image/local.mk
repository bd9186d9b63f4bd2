core_libcowgate_base_la_SOURCES += \
	core/image/detect.c core/image/detect.h \
	core/image/extents.c \
	core/image/file.c core/image/file.h \
	core/image/image.c core/image/image.h \
	core/image/nbd.c core/image/nbd.h core/image/nbd_pool.c core/image/nbd_pool.h \
	core/image/partition.c \
	core/image/qcow2.c core/image/qcow2.h core/image/qcow2_format.c core/image/qcow2_format.h \
	core/image/readahead.c core/image/readahead.h \
	core/image/window.c core/image/window.h
