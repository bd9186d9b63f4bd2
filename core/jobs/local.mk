core_libcowgate_la_SOURCES += \
	core/jobs/backup.h \
	core/jobs/compare.c core/jobs/compare.h \
	core/jobs/copy.c core/jobs/copy.h \
	core/jobs/progress.h \
	core/jobs/restore.h \
	core/jobs/verify.h
