core_libcowgate_la_SOURCES += \
	core/jobs/backup.c core/jobs/backup.h \
	core/jobs/backup_audit.c core/jobs/backup_audit.h \
	core/jobs/backup_plan.c core/jobs/backup_plan.h \
	core/jobs/backup_source.c core/jobs/backup_source.h \
	core/jobs/chunk_workers.c core/jobs/chunk_workers.h \
	core/jobs/compare.c core/jobs/compare.h \
	core/jobs/copy.c core/jobs/copy.h \
	core/jobs/export_diff.c core/jobs/export_diff.h \
	core/jobs/migrate_source.c core/jobs/migrate_source.h \
	core/jobs/migrate_spec.c core/jobs/migrate_spec.h \
	core/jobs/migration.c core/jobs/migration.h \
	core/jobs/output.c core/jobs/output.h \
	core/jobs/progress.h \
	core/jobs/restore.c core/jobs/restore.h \
	core/jobs/restore_look.c core/jobs/restore_look.h \
	core/jobs/verify.c core/jobs/verify.h
