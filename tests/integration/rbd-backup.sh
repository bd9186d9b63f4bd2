# A Ceph image of 20 GiB with 1 GiB of data is backed up, 100 of its objects change, and the second
# backup reads those and nothing else.  It comes back byte by byte.
. "$abs_srcdir/tests/functions.sh"
. "$abs_srcdir/tests/integration/ceph-functions.sh"
start_ceph

number() { jq -r ".$2" <"$1"; }
snapshots() { rbd snap ls "$1" --format json | jq -r '.[].name'; }

cowgate init
rbd create --size 20G rbd/web
rbd_write web 1 0+512M 10G+512M
cowgate --json backup rbd/rbd/web backups/acme/web >first
jq -e '.incremental == false and .reason == "there is no earlier point"' first
# Only objects with data.
jq -e '.chunks_read == 256 and .bytes_read == 1073741824' first
[ "$(snapshots rbd/web | grep -c '^cowgate-')" = 1 ]

# 60 in data, 30 where nothing was, 10 given back.
changes=()
for i in {0..59}; do changes+=("$((i * 8 + 1))M+4K"); done
for i in {0..29}; do changes+=("$((5000 + i * 40))M+64K"); done
rbd_write web 2 "${changes[@]}"
changes=()
for i in {0..9}; do changes+=("$((10 * 1024 + i * 12))M+4M"); done
rbd_write web trim "${changes[@]}"
cowgate --json backup rbd/rbd/web backups/acme/web >second
jq -e '.incremental and .chunks_read == 90 and .bytes_read == 90 * 4194304' second
jq -e '.chunks_stored == 90 and .chunks_audited >= 8 and .chunks_audited < 200' second
# The snapshot of the one before is gone.
[ "$(snapshots rbd/web | tr '\n' ' ')" = "$(cowgate --json info "$(number second point)" | jq -r .source.snapshot_name) " ]

# A backup that is killed leaves a snapshot; the next one takes it away.
cowgate backup --full --rate 50M rbd/rbd/web backups/acme/web 2>killed.log &
pid=$!
wait_for 60 bash -c '[ "$(rbd snap ls rbd/web --format json | jq length)" = 2 ]'
kill -9 $pid
wait $pid || true
cowgate --json backup rbd/rbd/web backups/acme/web >third
jq -e '.incremental and .chunks_read == 0 and .chunks_stored == 0' third
[ "$(snapshots rbd/web | wc -l)" = 1 ]

# A snapshot of the user's own is a source, and a base, too; nobody takes it away.
rbd_write web 3 3G+4M
rbd snap create --no-progress rbd/web@mine
cowgate --json backup rbd/rbd/web@mine backups/acme/web >fourth
jq -e '.incremental and .chunks_read == 1' fourth
rbd_write web 4 3G+4M
cowgate --json backup rbd/rbd/web backups/acme/web >fifth
jq -e '.incremental and .chunks_read == 1' fifth
snapshots rbd/web | grep -x mine

rbd export --no-progress rbd/web@"$(snapshots rbd/web | grep cowgate)" want.raw
cowgate export "$(number fifth point)" ./got.raw
qemu-img compare -q -f raw -F raw want.raw got.raw # knows holes

# Restored into a file, over the image as it is now, and into a new one, which Ceph's own tool can do
# too, from the first point on.
cowgate restore "$(number fifth point)" ./restored.raw
qemu-img compare -q -f raw -F raw want.raw restored.raw
rbd_write web 5 9M+4K 15G+64K
cowgate --json restore "$(number fifth point)" rbd/rbd/web | jq -e '.chunks_fetched == 1'
cowgate restore "$(number fifth point)" rbd/rbd/new
cowgate restore "$(number first point)" rbd/rbd/old
first=$(basename "$(number first point)")
rbd snap create --no-progress "rbd/old@$first"
cowgate export "$(number fifth point)" - --diff-from "$first" | rbd import-diff --no-progress - rbd/old
for image in web new old; do
    rm -f got.raw
    rbd export --no-progress "rbd/$image" got.raw
    qemu-img compare -q -f raw -F raw want.raw got.raw
done
cowgate verify
