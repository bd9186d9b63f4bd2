core_libcowgate_la_SOURCES += core/volumes/volumes.h
