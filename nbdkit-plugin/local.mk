plugindir = $(nbdkit_plugindir)
plugin_LTLIBRARIES = nbdkit-plugin/nbdkit-cowgate-plugin.la
nbdkit_plugin_nbdkit_cowgate_plugin_la_SOURCES = nbdkit-plugin/cowgate.c \
	nbdkit-plugin/ending.c nbdkit-plugin/ending.h
nbdkit_plugin_nbdkit_cowgate_plugin_la_CPPFLAGS = $(AM_CPPFLAGS) $(NBDKIT_CFLAGS)
nbdkit_plugin_nbdkit_cowgate_plugin_la_LDFLAGS = $(AM_LDFLAGS) -module -avoid-version -shared
nbdkit_plugin_nbdkit_cowgate_plugin_la_LIBADD = core/libcowgate.la

EXTRA_DIST += nbdkit-plugin/nbdkit-cowgate-plugin.pod
if HAVE_POD2MAN
man_MANS += nbdkit-plugin/nbdkit-cowgate-plugin.1
endif
CLEANFILES += nbdkit-plugin/nbdkit-cowgate-plugin.1
