#!/bin/bash
# What can be wrong with rbd/: each is said clearly, and the status is 1.
. "$abs_srcdir/tests/functions.sh"
. "$abs_srcdir/tests/integration/ceph-functions.sh"
. "$abs_srcdir/tests/integration/rbd-functions.sh"
start_ceph

cowgate init
rbd create web --size 8M
rbd snap create --no-progress web@s1

# refused SETTINGS TEXT: with these settings info of an image says this.
refused() {
    configure "$1"
    must_fail 1 "$2" cowgate info rbd/rbd/web
}

# The connection.
refused '{"conf": "/nonexistent/ceph.conf"}' 'read /nonexistent/ceph.conf: No such file'
refused '{"id": "nobody"}' 'as client.nobody: the cluster knows no such user'
ceph-authtool --create-keyring wrong --gen-key ${CEPH_KEY_TYPE:+--key-type "$CEPH_KEY_TYPE"} \
    -n client.admin >ceph.log 2>&1
refused "{\"keyring\": \"$tmp/wrong\"}" "as client.admin: .* the keyring .* hasn't its key"
refused "{\"keyring\": \"$tmp/none\"}" "as client.admin: .* the keyring .* hasn't its key"
sed 's/127.0.0.1/127.0.0.9/g' "$CEPH_CONF" >away.conf
refused "{\"conf\": \"$tmp/away.conf\", \"timeout\": 2}" 'no monitor answered within 2 s'
ceph auth get-or-create client.reader mon 'profile rbd' osd 'profile rbd-read-only' >reader
configure "{\"id\": \"reader\", \"keyring\": \"$tmp/reader\"}"
cowgate info rbd/rbd/web >info.log
must_fail 1 'rbd/rbd/new: .*(not permitted|Permission denied)' cowgate create rbd/rbd/new --size 1M

# The settings.
refused '[]' 'rbd is no object'
refused '{"colour": "red"}' "no setting 'colour'"
refused '{"cache": "on"}' 'rbd.cache is off, writethrough or writeback'
refused '{"timeout": 0}' 'rbd.timeout is 1 to 86400'
refused '{"audit": 2}' 'rbd.audit is a share'
refused '{"id": ""}' 'rbd.id is not a string'
refused '{"pools": ["rbd"]}' 'rbd.pools is no object'
refused '{"pools": {"rbd": "a/b"}}' 'rbd has the name of a project'

# The module.
configure '{}'
COWGATE_MODULES=/nonexistent must_fail 1 "rbd/ needs a module that can't be loaded" \
    cowgate info rbd/rbd/web
COWGATE_MODULES=/nonexistent cowgate create volumes/acme/other --size 1M

# Names.
must_fail 1 'there is no pool gone' cowgate info rbd/gone/web
must_fail 1 'there is no rbd/rbd/gone' cowgate info rbd/rbd/gone
must_fail 1 'there is no rbd/rbd/web@gone' cowgate info rbd/rbd/web@gone
must_fail 1 'there is no rbd/rbd/ns/web' cowgate info rbd/rbd/ns/web
must_fail 1 'names no image' cowgate info rbd/rbd
must_fail 1 'exists' cowgate create rbd/rbd/web --size 1M
rbd create .hidden --size 1M
rbd create web.p1 --size 1M
rbd snap create --no-progress web@.hidden
must_fail 1 'hidden' cowgate info rbd/rbd/.hidden
cowgate list rbd/ >list.out 2>list.err
[ "$(wc -l <list.out)" = 2 ] || fail "$(cat list.out)"
grep -qx "cowgate: 3 names in rbd/ can't be used here and are not shown" list.err ||
    fail "$(cat list.err)"

# Pools and projects.
ceph osd pool create other 8 >>ceph.log 2>&1
rbd pool init other
rbd create other/web --size 1M
rbd namespace create other/ns
rbd create other/ns/web --size 1M
configure '{"pools": {"rbd": "acme", "other/ns": "beta", "unused": null}}'
must_fail 1 "pool other isn't among those" cowgate info rbd/other/web
must_fail 1 "pool other isn't among those" cowgate create rbd/other/new --size 1M
cowgate --json list rbd/ | jq -e 'map(.name) == ["rbd/other/ns/web", "rbd/rbd/web", "rbd/rbd/web@s1"]'
# served PROJECT NAMES: what a client sees, as a JSON array.
served() {
    start_serve sock --project "$1"
    nbdinfo --list --json "$(uri sock)" | jq -c '[.exports[]["export-name"]]' >names
    [ "$(cat names)" = "$2" ] || fail "project $1 sees $(cat names)"
}
served beta '["rbd/other/ns/web"]'
nbdinfo --size "$(uri sock rbd/other/ns/web)"
for name in rbd/rbd/web rbd/rbd/web@s1 rbd/other/web rbd/unused/web rbd/other/ns/web/x; do
    must_fail 1 "$name" nbdinfo "$(uri sock "$name")"
done
stop "$serve_pid"
served acme '["rbd/rbd/web","rbd/rbd/web@s1","volumes/acme/other"]'
must_fail 1 ns nbdinfo "$(uri sock rbd/other/ns/web)"
stop "$serve_pid"
configure '{}'
start_serve sock --project acme
nbdinfo --list --json "$(uri sock)" | jq -e '[.exports[]["export-name"]] == ["volumes/acme/other"]'
must_fail 1 web nbdinfo "$(uri sock rbd/rbd/web)"
stop "$serve_pid"

# An image without the features that Ceph gives it by default works, without a lock.
rbd create plain --size 8M --image-feature layering
start_serve sock
nbd_python "$tool" interleave "$(uri sock rbd/rbd/plain)" "$(uri sock rbd/rbd/plain)"

# In use: who replaces an image's content wants it alone, and says who has it.
head -c 1M /dev/urandom >disk.raw
cowgate import ./disk.raw volumes/acme/disk
point=$(cowgate backup volumes/acme/disk)
for image in plain web; do
    start_holder "$(uri sock "rbd/rbd/$image")"
    write_one 0
    must_fail 1 "rbd/rbd/$image is open elsewhere for writing, by the client at 127.0.0.1:" \
        cowgate restore "$point" "rbd/rbd/$image"
    stop_holder
    cowgate restore "$point" "rbd/rbd/$image"
    nbdcopy "$(uri sock "rbd/rbd/$image")" out.raw
    cmp -n 1048576 disk.raw out.raw
done

# A full pool is an error, not a wait; what was written can be written again.
ceph osd pool set-quota rbd max_bytes 100000 >>ceph.log 2>&1
wait_for 60 eval 'ceph health detail | grep -q POOL_FULL'
must_fail 1 'the pool is full' cowgate import ./disk.raw rbd/rbd/full
must_fail 1 'No space left' nbd_python -c '
import nbd, sys
h = nbd.NBD()
h.connect_uri(sys.argv[1])
h.pwrite(b"x" * 512, 7 << 20)' "$(uri sock rbd/rbd/web)"
grep -q 'write rbd/rbd/web: the pool is full' sock.log || fail "$(cat sock.log)"
ceph osd pool set-quota rbd max_bytes 0 >>ceph.log 2>&1
wait_for 60 eval '! ceph health detail | grep -q POOL_FULL'
cowgate import ./disk.raw rbd/rbd/full
