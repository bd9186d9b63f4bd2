#!/bin/bash
# A disk goes into a Ceph image and out again, by the same commands as for local volumes.
. "$abs_srcdir/tests/functions.sh"
. "$abs_srcdir/tests/integration/ceph-functions.sh"
start_ceph

cowgate init
head -c 10M /dev/urandom >disk.raw
truncate -s 64M disk.raw
cowgate import ./disk.raw rbd/rbd/web
rbd export --no-progress rbd/web out.raw
same disk.raw out.raw
cowgate snapshot rbd/rbd/web@s1
rbd snap ls rbd/web --format json | jq -e '.[0].name == "s1"'
start_nbdkit "$tmp/off" "root=$COWGATE_ROOT"
must_fail 1 'No such file' nbdinfo "$(uri "$tmp/off" rbd/rbd/web)"
jq '.rbd = {}' "$COWGATE_ROOT/cowgate.json" >new.json
mv new.json "$COWGATE_ROOT/cowgate.json"
start_serve "$tmp/sock"
nbdinfo --list --json "$(uri "$tmp/sock")" | jq -e '[.exports[]["export-name"]] == ["rbd/rbd/web", "rbd/rbd/web@s1"]'
rm out.raw
qemu-io -f raw -c 'write -P 7 20M 1M' "$(uri "$tmp/sock" rbd/rbd/web)" >qemu-io.log
rbd export --no-progress rbd/web out.raw
printf '\7%.0s' {1..512} >want
dd if=out.raw bs=512 skip=40960 count=1 of=got status=none
same want got
nbdcopy "$(uri "$tmp/sock" rbd/rbd/web@s1)" got.raw
same disk.raw got.raw
