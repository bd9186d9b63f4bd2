bin_PROGRAMS += cli/cowgate
cli_cowgate_SOURCES = \
	cli/attach.c \
	cli/attach_server.c cli/attach_server.h \
	cli/attach_watch.c cli/attach_watch.h \
	cli/attachment.c cli/attachment.h \
	cli/backups.c \
	cli/cli.c cli/cli.h \
	cli/copy.c \
	cli/detach.c cli/detach.h \
	cli/export_diff.c \
	cli/hooks.c cli/hooks.h \
	cli/look.c \
	cli/main.c \
	cli/migrate.c cli/migrate.h \
	cli/migrate_check.c cli/migrate_check.h \
	cli/migrate_image.c \
	cli/migrate_inside.h \
	cli/migrate_prepare.c \
	cli/migrate_server.c cli/migrate_server.h \
	cli/migrate_steps.c \
	cli/mount.c \
	cli/nbd_handshake.c cli/nbd_handshake.h \
	cli/nbd_kernel.c cli/nbd_kernel.h \
	cli/progress.c \
	cli/restore_live.c \
	cli/serve.c \
	cli/serve_socket.c cli/serve_socket.h \
	cli/target.c cli/target.h \
	cli/volumes.c
cli_cowgate_CPPFLAGS = $(AM_CPPFLAGS) $(NL_CFLAGS) -DNBDKIT_PLUGINDIR='"$(nbdkit_plugindir)"' \
	-DBINDIR='"$(bindir)"'
cli_cowgate_LDADD = core/libcowgate.la $(NL_LIBS)
