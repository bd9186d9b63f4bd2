core_libcowgate_la_SOURCES += core/backups/backups.h
