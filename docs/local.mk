# Man pages are written in POD beside what they document.
EXTRA_DIST += docs/cowgate.pod docs/format-repository.md docs/format-volumes.md docs/history-qcow2.md docs/migration.md

if HAVE_POD2MAN
man_MANS += docs/cowgate.1
endif
CLEANFILES += docs/cowgate.1

examplesdir = $(docdir)/examples
examples_DATA = contrib/cowgate-serve@.service
EXTRA_DIST += contrib/cowgate-serve@.service.in
CLEANFILES += contrib/cowgate-serve@.service
contrib/cowgate-serve@.service: contrib/cowgate-serve@.service.in Makefile
	$(AM_V_GEN)$(MKDIR_P) $(@D) && sed 's|@bindir[@]|$(bindir)|' \
	    '$(srcdir)/contrib/cowgate-serve@.service.in' >$@

SUFFIXES = .pod .1
.pod.1:
	$(AM_V_GEN)$(MKDIR_P) $(@D) && $(POD2MAN) --section=1 --center=cowgate \
	    --release='cowgate $(PACKAGE_VERSION)' --name="$$(basename $@ .1 | tr a-z A-Z)" $< $@
