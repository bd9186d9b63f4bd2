#!/bin/bash
# What a client can see and name: the list with descriptions, the grammar and nothing else, the
# project's walls, and sentences in the log for what is refused.
. "$abs_srcdir/tests/functions.sh"
requires nbd_python -c 'import nbd'

cowgate init
truncate -s 8M disk
sfdisk -q disk <<<'label: gpt
start=2048, size=4096'
cowgate --quiet import ./disk volumes/acme/web
cowgate snapshot volumes/acme/web@s1
cowgate create volumes/other/secret --size 1M
point=$(cowgate --quiet backup volumes/acme/web)

start_nbdkit all.sock "root=$COWGATE_ROOT"
nbdinfo --list --json "$(uri all.sock)" >list.json
names=$(jq -r '.exports[]."export-name"' list.json | sort)
expected=$(printf '%s\n' volumes/acme/web volumes/acme/web@s1 volumes/other/secret "$point" \
    backups/acme/web/latest | sort)
# The backup may leave a snapshot of its own for the next one.
[ "$(grep -v '@cowgate-' <<<"$names")" = "$expected" ] || fail "listed: $names"
jq -e 'all(.exports[]; .description != null and .description != "")' list.json >/dev/null ||
    fail "an export has no description"

# The abilities of a volume and of what can only be read.
nbdinfo --json "$(uri all.sock volumes/acme/web)" >volume.json
jq -e '.exports[0] | .["export-size"] == 8388608 and ."is_read_only" == false and
    ."can_multi_conn" and ."can_trim" and ."can_zero" and ."can_fast_zero" and ."can_fua" and
    ."can_flush" and ."can_cache" and ."block_size_minimum" == 512 and ."block_size_preferred" == 4096 and
    ."block_size_maximum" == 33554432 and (.contexts | index("base:allocation") != null)' volume.json \
    >/dev/null || fail "$(cat volume.json)"
for name in volumes/acme/web@s1 "$point" backups/acme/web/latest; do
    nbdinfo --json "$(uri all.sock "$name")" >ro.json
    jq -e '.exports[0]."is_read_only"' ro.json >/dev/null || fail "$name can be written"
    jq -e '.exports[0]."export-size" == 8388608' ro.json >/dev/null || fail "size of $name"
done
nbdinfo --json "$(uri all.sock backups/acme/web/latest)" | jq -r '.exports[0].description' |
    grep -q "latest.*${point##*/}" || fail "latest doesn't say which point it is"

# A partition isn't listed but opens.
nbdinfo --size "$(uri all.sock volumes/acme/web.p1)" | grep -qx 2097152
nbdinfo --size "$(uri all.sock backups/acme/web/latest.p1)" | grep -qx 2097152

# An export's description ends with an id by which a client that connects again knows whether it is
# the same image: whatever happens to it, but not another of its name.
id() { nbdinfo --json "$(uri all.sock "$1")" | jq -r '.exports[0].description' | sed -n 's/.*, id //p'; }
ids() { for name in volumes/acme/web{,@s1,.p1} "$point" "$point.qcow2"; do id $name; done; }
ids >before
[ "$(sort -u before | grep -c .)" = 5 ] || fail "$(cat before)"
id volumes/acme/web.p1 | grep -q ':1048576+2097152$' || fail "$(cat before)"
cowgate snapshot volumes/acme/web@s2
cowgate rename volumes/acme/web volumes/acme/renamed
cowgate rename volumes/acme/renamed volumes/acme/web
ids | diff before - || fail "other ids"
for name in volumes/acme/web{,@s1,.p1}; do id $name; done >one
cowgate rename volumes/acme/web volumes/acme/away
sfdisk -q disk <<<'label: gpt
start=4096, size=4096'
cowgate --quiet import ./disk volumes/acme/web
cowgate snapshot volumes/acme/web@s1
for name in volumes/acme/web{,@s1,.p1}; do id $name; done >two
id volumes/acme/web.p1 | grep -q ':2097152+2097152$' || fail "$(cat two)"
! grep -qxFf one two || fail "the same ids: $(cat one two)"
cowgate delete --snapshots volumes/acme/web
cowgate rename volumes/acme/away volumes/acme/web

# refused NAME TEXT: the name doesn't open, and the log says why.
refused() {
    : >all.sock.log
    ! nbd_try all.sock "$1" 2>/dev/null || fail "'$1' was opened"
    grep -Eq -- "$2" all.sock.log || fail "the log does not say '$2' about '$1'"
}
long=$(printf 'x%.0s' {1..129})
refused '' 'empty export name'
refused '../' "it is a path, and only a name can stand here"
refused 'volumes/../../etc/passwd' "a part that doesn't begin with a letter or digit"
refused '/etc/passwd' 'it is a path, and only'
refused "$PWD/disk" 'it is a path, and only'
refused './disk' 'it is a path, and only'
refused 'disk' 'begins with no space'
refused 'nbd://localhost/x' 'it is a URI, and only'
refused "volumes/acme/$long" 'more than 128'
refused 'a/b/c/d/e' 'begins with no space'
refused 'volumes/acme/web/x/y' 'too many parts'
refused 'volumes/acme' 'parts are missing'
refused 'volumes/acme/nothing' 'there is no volume volumes/acme/nothing$'
refused 'volumes/acme/web@nothing' 'there is no snapshot volumes/acme/web@nothing$'
refused 'volumes/acme/web.p2' 'no partition 2'
refused 'volumes/acme/web.p0' 'there is no volume volumes/acme/web.p0$'
refused 'backups/acme/web/19700101T000000Z' 'there is no backups/acme/web/19700101T000000Z$'
refused 'rbd/pool/image' 'has no such space'
stop "$serve_pid"

# Another project doesn't exist.
start_nbdkit acme.sock "root=$COWGATE_ROOT" project=acme
! nbdinfo --list --json "$(uri acme.sock)" | grep -q 'secret\|other' || fail "other is listed"
nbd_try acme.sock volumes/acme/web
! nbd_try acme.sock volumes/other/secret 2>/dev/null || fail "other/secret was opened"
! nbd_try acme.sock volumes/other/nothing 2>/dev/null
[ "$(grep -c 'only project acme is served' acme.sock.log)" = 2 ] ||
    fail "what is there and what isn't differ to another project"
stop "$serve_pid"

# readonly=true, and what the empty name means.
start_nbdkit ro.sock "$COWGATE_ROOT" readonly=true export=volumes/acme/web
nbdinfo --json "$(uri ro.sock)" | jq -e '.exports[0] | .is_read_only and ."export-size" == 8388608' \
    >/dev/null || fail "the default export"
must_fail 1 'Permission denied' \
    qemu-io -f raw -c 'write 0 4k' "$(uri ro.sock volumes/acme/web)"
stop "$serve_pid"

# Wrong parameters, each with its own message.
bad() {
    local text=$1
    shift
    must_fail 1 "$text" "${COWGATE_NBDKIT:-nbdkit}" --foreground --unix bad.sock \
        "$COWGATE_PLUGIN" "$@"
    rm -f bad.sock
}
bad 'no root at /nowhere/at/all: make one' root=/nowhere/at/all
bad "not the name of a project" "root=$COWGATE_ROOT" project=a/b
bad "given twice" "root=$COWGATE_ROOT" "root=$COWGATE_ROOT"
bad "unknown parameter 'rot'" rot=x
bad 'it is a path, and only a name' "root=$COWGATE_ROOT" export=/etc/passwd
bad 'could not decipher boolean' "root=$COWGATE_ROOT" readonly=perhaps
