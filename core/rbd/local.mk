if WITH_RBD
pkglib_LTLIBRARIES += core/rbd/cowgate-rbd.la
core_rbd_cowgate_rbd_la_SOURCES = \
	core/module.h \
	core/rbd/call.c core/rbd/call.h \
	core/rbd/change.c \
	core/rbd/clone.c \
	core/rbd/cluster.c core/rbd/cluster.h \
	core/rbd/diff.c \
	core/rbd/settings.c core/rbd/settings.h \
	core/rbd/extents.c \
	core/rbd/hold.c \
	core/rbd/info.c \
	core/rbd/limit.c core/rbd/limit.h \
	core/rbd/list.c \
	core/rbd/lock.c \
	core/rbd/mark_key.c core/rbd/mark_key.h \
	core/rbd/marks.c core/rbd/marks.h \
	core/rbd/migration.c \
	core/rbd/migration_header.c core/rbd/migration_header.h \
	core/rbd/moment.c \
	core/rbd/policy.c core/rbd/policy.h \
	core/rbd/opens.c \
	core/rbd/rbd.h \
	core/rbd/rbd_image.c core/rbd/rbd_image.h \
	core/rbd/rbd_space.c \
	core/rbd/remove.c \
	core/rbd/snapshot.c \
	core/rbd/turn.c core/rbd/turn.h \
	core/rbd/users.c core/rbd/users.h
core_rbd_cowgate_rbd_la_LDFLAGS = $(AM_LDFLAGS) -module -avoid-version -shared
# The module has its own copy of the lowest rooms: images and spaces are opaque to each other.
core_rbd_cowgate_rbd_la_LIBADD = core/libcowgate-base.la $(RBD_LIBS)
endif
