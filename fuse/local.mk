bin_PROGRAMS += fuse/cowgate-fuse
fuse_cowgate_fuse_SOURCES = \
	fuse/fs.h \
	fuse/io.c \
	fuse/log.c fuse/log.h \
	fuse/main.c \
	fuse/mountpoint.c fuse/mountpoint.h \
	fuse/nodes.c fuse/nodes.h \
	fuse/opens.c fuse/opens.h \
	fuse/order.c fuse/order.h \
	fuse/ops.c fuse/ops.h \
	fuse/options.c fuse/options.h \
	fuse/tree.c fuse/tree.h
fuse_cowgate_fuse_CPPFLAGS = $(AM_CPPFLAGS) $(FUSE_CFLAGS) -DFUSE_USE_VERSION=314
fuse_cowgate_fuse_LDADD = core/libcowgate.la $(FUSE_LIBS)

EXTRA_DIST += fuse/cowgate-fuse.pod
if HAVE_POD2MAN
man_MANS += fuse/cowgate-fuse.1
endif
CLEANFILES += fuse/cowgate-fuse.1
