core_libcowgate_la_SOURCES += \
	core/backups/backups.c core/backups/backups.h \
	core/backups/cache.c core/backups/cache.h \
	core/backups/damaged.c \
	core/backups/history.c core/backups/history.h \
	core/backups/history_image.c \
	core/backups/history_points.c core/backups/history_points.h \
	core/backups/hold_file.c core/backups/hold_file.h \
	core/backups/holds.c core/backups/holds.h \
	core/backups/keys.c core/backups/keys.h \
	core/backups/object.c core/backups/object.h \
	core/backups/page.c core/backups/page.h \
	core/backups/point.c core/backups/point.h \
	core/backups/point_image.c \
	core/backups/project.c core/backups/project.h \
	core/backups/refs.c core/backups/refs.h \
	core/backups/repository.c core/backups/repository.h \
	core/backups/repository_json.c core/backups/repository_json.h \
	core/backups/session.c core/backups/session.h \
	core/backups/store.c core/backups/store.h \
	core/backups/store_dir.c core/backups/store_dir.h \
	core/backups/store_dir_session.c
