# kill -9 of the server under clients that write without flushing: the next server has every write
# that was acknowledged, and so have a snapshot made after the kill and the disk after an orderly end.
. "$abs_srcdir/tests/functions.sh"
client=$abs_builddir/tests/integration/volumes-client

cowgate init
cowgate create volumes/acme/v --size 100M
start_serve "$tmp/s"
v=$(uri "$tmp/s" volumes/acme/v)

# Of what a round before knew, all that this one didn't touch is still there; where this one's first
# write of a piece was under way at the kill, what was there before may be too.
merge() {
    awk 'NR == FNR { was[$1] = $2; next } $2 < 0 && $1 in was { $2 = was[$1] } { print; new[$1] = 1 }
         END { for (p in was) if (!(p in new)) print p, was[p], -1 }' known acknowledged >merged
    mv merged known
}
kill_it() {
    "$client" write "$v" "$serve_pid" "$1" 400 >acknowledged
    wait "$serve_pid" 2>/dev/null || true
    merge
}

: >known
for round in 1 2 3; do
    kill_it $round
    start_serve "$tmp/s"
    "$client" check "$v" <known
    # What was under way is settled by now.
    awk '$3 < 0' known >settled
    mv settled known
done
kill_it 4
cowgate snapshot volumes/acme/v@s
other_boot
start_serve "$tmp/s"
"$client" check "$(uri "$tmp/s" volumes/acme/v@s)" <known
"$client" check "$v" <known
