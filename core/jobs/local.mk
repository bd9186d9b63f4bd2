core_libcowgate_la_SOURCES += core/jobs/progress.h core/jobs/compare.c core/jobs/compare.h core/jobs/copy.h core/jobs/backup.h core/jobs/restore.h core/jobs/verify.h
