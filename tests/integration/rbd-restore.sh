# A point goes back to Ceph: into a new image, over one that is there, where only objects that differ
# are written, and as a stream for Ceph's own import-diff.
. "$abs_srcdir/tests/functions.sh"
. "$abs_srcdir/tests/integration/ceph-functions.sh"
start_ceph

backup() { cowgate --json backup "rbd/rbd/$1" "backups/acme/$1" | jq -r .point; }
content() { rbd export --no-progress "$1" - | sha256sum; }
# objects IMAGE FROM: how many have changed since.
objects() { rbd diff --from-snap "$2" "$1" --format json | jq '[.[].offset / 4194304 | floor] | unique | length'; }

cowgate init
rbd create --size 512M rbd/web
rbd_write web 1 0+40M 256M+12M
first=$(backup web)
rbd_write web 2 5M+4K 100M+64K 375M+1M
rbd_write web trim 256M+4M
rbd snap create --no-progress rbd/web@want
second=$(backup web)
want=$(content rbd/web@want)

# A new image, as sparse as it was.
cowgate --json restore "$second" rbd/rbd/new >out
[ "$(content rbd/new)" = "$want" ]
jq -e '.bytes_read == 0 and .chunks_fetched == 14' out
[ "$(rbd du --format json rbd/new | jq '.images[0].used_size')" = $((14 * 4 << 20)) ]
cowgate restore "$second" ./file.raw
[ "$(sha256sum <file.raw)" = "$want" ]

# Over what is there only objects that differ are written.
rbd_write web 3 20M+4K 200M+4K
rbd snap create --no-progress rbd/web@before
cowgate --json restore "$second" rbd/rbd/web >out
[ "$(content rbd/web)" = "$want" ]
[ "$(objects rbd/web before)" = 2 ]
jq -e '.chunks_fetched == 1 and .bytes_written <= 8388608 and .bytes_trusted == 0' out
# Of the image's 128 objects those that exist were read.
jq -e '.bytes_read == 15 * 4194304' out
cowgate --json restore "$second" rbd/rbd/web | jq -e '.bytes_written == 0'

# With trust, only what Ceph says has changed since the point's snapshot.
rbd_write web 4 24M+4K 300M+4K
cowgate --json restore --trust-diff "$second" rbd/rbd/web >out
[ "$(content rbd/web)" = "$want" ]
jq -e '.distrust == "" and .chunks_fetched == 1' out
jq -e '.bytes_read == 3 * 4194304 and .bytes_trusted == 536870912 - 3 * 4194304' out
must_fail 0 "all of rbd/rbd/web was read, since the point's snapshot is gone" \
    cowgate restore --trust-diff "$first" rbd/rbd/web
must_fail 0 'since the point is of another image' cowgate restore --trust-diff "$second" rbd/rbd/new
must_fail 0 "since the target's changes aren't recorded" cowgate restore --trust-diff "$second" ./file.raw
rbd snap rollback --no-progress rbd/web@want
rbd_write web 5 28M+4K
must_fail 0 'all of rbd/rbd/web was read, since' cowgate restore --trust-diff "$second" rbd/rbd/web
[ "$(content rbd/web)" = "$want" ]

# An image that somebody else writes isn't touched; a smaller one neither, a larger one keeps its tail.
rbd bench --io-type write --io-size 4K --io-threads 1 --io-total 4G rbd/new >bench.log 2>&1 &
pid=$!
wait_for 30 bash -c 'rbd lock ls rbd/new | grep -q auto'
must_fail 1 'open elsewhere|written by another' cowgate restore "$second" rbd/rbd/new
kill $pid
wait $pid || true
rbd create --size 256M rbd/small
must_fail 1 'at least as large' cowgate restore "$second" rbd/rbd/small
rbd create --size 768M rbd/large
rbd_write large 6 640M+4K
tail=$(rbd export --no-progress rbd/large - | tail -c 256M | sha256sum)
must_fail 0 "what lies behind its end was left" cowgate restore "$second" rbd/rbd/large
rbd export --no-progress rbd/large large.raw
[ "$(head -c 512M large.raw | sha256sum)" = "$want" ]
[ "$(tail -c 256M large.raw | sha256sum)" = "$tail" ]
