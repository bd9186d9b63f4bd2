# What make install puts where, and that it works from there; make uninstall takes it all away.
. "$abs_srcdir/tests/functions.sh"
requires test -e "$abs_builddir/Makefile"

# Not with the flags of the make that runs this test.
unset MAKEFLAGS MFLAGS MAKELEVEL
make -C "$abs_builddir" install DESTDIR="$tmp/dest" >install.log 2>&1 || fail "make install failed"
cd dest
find . ! -type d ! -name cowgate-rbd.so | sort >"$tmp/installed" # the module only where librbd is
cd ..
for file in bin/cowgate bin/cowgate-fuse nbdkit-cowgate-plugin.so man1/cowgate.1 man1/cowgate-fuse.1 \
    man1/nbdkit-cowgate-plugin.1 examples/cowgate-serve@.service; do
    grep -q "/$file\$" installed || fail "$file isn't installed: $(cat installed)"
done
[ "$(wc -l <installed)" = 7 ] || fail "more is installed than that: $(cat installed)"

# The sample unit starts what was installed.
unit=$tmp/dest/$(grep '/cowgate-serve@.service$' installed)
start=$(sed -n 's/^ExecStart=\([^ ]*\) serve .*/\1/p' "$unit")
[ -x "$tmp/dest$start" ] && grep -qx 'Restart=always' "$unit" || fail "$(cat "$unit")"
if systemd-analyze --version >/dev/null 2>&1; then
    sed "s|^ExecStart=|&$tmp/dest|" "$unit" >"cowgate-serve@acme.service"
    systemd-analyze verify --man=no "$PWD/cowgate-serve@acme.service" 2>&1 | grep acme && fail "the unit is wrong"
fi

# The plugin that nbdkit would load, and the others, run from there.
plugin=$tmp/dest/$(grep 'nbdkit-cowgate-plugin.so$' installed)
bin=$tmp/dest/$(dirname "$(grep '/bin/cowgate$' installed)")
nbdkit=${COWGATE_NBDKIT:-nbdkit}
"$nbdkit" --dump-plugin "$plugin" | grep -qx name=cowgate || fail "the installed plugin doesn't load"
"$bin/cowgate" init
"$bin/cowgate" create volumes/acme/web --size 1M
COWGATE_PLUGIN=$plugin "$bin/cowgate" serve volumes/acme/web --socket "$tmp/s" 2>serve.log &
serve_pid=$!
cleanup_fn stop "$serve_pid"
wait_for 30 nbd_answers s
[ "$(nbdinfo --size "$(uri "$tmp/s")")" = 1048576 ] || fail "$(cat serve.log)"
stop "$serve_pid"
"$bin/cowgate-fuse" --help 2>&1 | grep -qi usage || fail "the installed cowgate-fuse doesn't run"

make -C "$abs_builddir" uninstall DESTDIR="$tmp/dest" >uninstall.log 2>&1 || fail "make uninstall failed"
[ -z "$(find dest ! -type d)" ] || fail "uninstall left $(find dest ! -type d)"
