#!/bin/bash
# Clones of and into Ceph: what stands on a snapshot keeps it, what lets go leaves nothing behind.
. "$abs_srcdir/tests/functions.sh"
. "$abs_srcdir/tests/integration/ceph-functions.sh"
start_ceph

marks() { rbd image-meta ls "$1" --format json | jq -s '[.[] | length] | add // 0'; }
# clean IMAGE WANT: these snapshots are there, none protected, no marks.
clean() {
    [ "$(rbd snap ls "$1" --format json | jq -r '[.[] | .name + ":" + .protected] | join(" ")')" = "$2" ] ||
        fail "$(rbd snap ls "$1")"
    [ "$(marks "$1")" = 0 ] || fail "$(rbd image-meta ls "$1")"
}
protected() { rbd snap ls "$1" --format json | jq -e --arg s "$2" '[.[] | select(.name == $s)][0].protected == "true"' >/dev/null; }
parent() { rbd info "$1" --format json | jq -r 'if .parent then "\(.parent.pool)/\(.parent.image)@\(.parent.snapshot)" else "none" end'; }
# reads NAME FILE: the image has the file's content.
reads() {
    rm -f out.raw
    cowgate --quiet export "$1" ./out.raw
    same "$2" out.raw
}

cowgate init
head -c 9M /dev/urandom >one.raw
head -c 9M /dev/urandom >two.raw
cowgate --quiet import ./one.raw rbd/rbd/web
cowgate snapshot rbd/rbd/web@s1

# Native clones: of format 1, which want the snapshot protected, then of format 2, which don't.
for format in 1 2; do
    [ $format = 1 ] || ceph osd set-require-min-compat-client mimic --yes-i-really-mean-it
    [ -z "$(cowgate clone rbd/rbd/web@s1 rbd/rbd/c1 2>&1)" ] || fail "it says something"
    [ "$(parent c1)" = rbd/web@s1 ] || fail "no native clone: $(rbd info c1)"
    cowgate clone rbd/rbd/web@s1 rbd/rbd/c2
    reads rbd/rbd/c1 one.raw
    must_fail 1 'rbd/rbd/c1 exists already' cowgate clone rbd/rbd/web@s1 rbd/rbd/c1
    must_fail 1 'there is no such snapshot' cowgate clone rbd/rbd/web@none rbd/rbd/c3
    if [ $format = 1 ]; then
        must_fail 1 'web@s1 is needed by .*\(rbd/rbd/c1, rbd/rbd/c2\)' cowgate delete rbd/rbd/web@s1
    fi
    must_fail 1 'rbd/rbd/web is needed by .*\(rbd/rbd/c1, rbd/rbd/c2\)' cowgate delete --snapshots rbd/rbd/web
    cowgate --quiet flatten rbd/rbd/c1
    [ "$(parent c1)" = none ] || fail "not flat: $(rbd info c1)"
    cowgate flatten rbd/rbd/c1 # again is nothing to do
    reads rbd/rbd/c1 one.raw
    cowgate delete rbd/rbd/c2
    clean web s1:false
    cowgate delete rbd/rbd/c1

    # A clone of an image as it is now stands on a snapshot that nobody has to know of.
    cowgate clone rbd/rbd/web rbd/rbd/now
    [[ "$(parent now)" =~ ^rbd/web@ ]] || fail "no native clone: $(rbd info now)"
    qemu-io -f raw -c 'write -q -P 9 0 1M' "rbd:rbd/web"
    reads rbd/rbd/now one.raw
    if [ $format = 2 ]; then
        cowgate --json list rbd/rbd/web | jq -e '[.[].name] == ["rbd/rbd/web", "rbd/rbd/web@s1"]'
    fi
    [ "$(marks now)" = 0 ] || fail "marks of another image"
    cowgate delete rbd/rbd/now
    clean web s1:false
    [ "$(rbd snap ls --all web --format json | jq length)" = 1 ] || fail "$(rbd snap ls --all web)"
    cowgate rollback rbd/rbd/web@s1
    # What came to nothing leaves none either.
    cowgate create rbd/rbd/taken --size 1M
    must_fail 1 'taken exists already' cowgate clone rbd/rbd/web rbd/rbd/taken
    cowgate delete rbd/rbd/taken
    clean web s1:false
done

# What people protected stays protected.
rbd snap protect web@s1
rbd clone --rbd-default-clone-format 1 rbd/web@s1 rbd/theirs
cowgate flatten rbd/rbd/theirs 2>/dev/null
protected web s1 || fail "unprotected what isn't ours"
must_fail 1 'web@s1 is protected' cowgate delete rbd/rbd/web@s1
must_fail 1 'web@s1 is protected' cowgate delete --snapshots rbd/rbd/web
cowgate clone rbd/rbd/web@s1 volumes/acme/v
cowgate delete volumes/acme/v
protected web s1 || fail "unprotected what isn't ours"
rbd snap unprotect web@s1
cowgate delete rbd/rbd/theirs
clean web s1:false

# Local volumes over Ceph: the snapshot is protected and marked with the volume's uuid.
cowgate clone rbd/rbd/web@s1 volumes/acme/v
cowgate clone rbd/rbd/web volumes/acme/now
cowgate clone volumes/acme/now volumes/acme/child
uuid=$(cowgate --json info volumes/acme/v | jq -r .uuid)
protected web s1 || fail "not protected"
rbd image-meta ls web --format json | jq -e --arg u "hold.$uuid" '[keys[] | select(endswith($u))] | length == 1'
snap=$(cowgate --json info volumes/acme/now | jq -r .parent.name)
[[ $snap =~ ^rbd/rbd/web@cowgate-clone- ]] && protected web "${snap#*@}" || fail "$snap"
qemu-io -f raw -c 'write -q -P 9 0 1M' "rbd:rbd/web"
for v in v now child; do reads volumes/acme/$v one.raw; done
must_fail 1 "web@s1 is needed by a volume of host .*$uuid" cowgate delete rbd/rbd/web@s1
must_fail 1 'is needed by a volume of host' cowgate delete --snapshots rbd/rbd/web
must_fail 1 'stands on one of its snapshots' cowgate rename rbd/rbd/web rbd/rbd/web2
must_fail 16 . rbd snap rm --no-progress web@s1 # Ceph's own tool
# A server that isn't told of rbd/ serves what stands on it, and not rbd/.
start_serve "$tmp/sock"
must_fail 1 'No such file' nbdinfo "$(uri "$tmp/sock" rbd/rbd/web)"
nbdcopy "$(uri "$tmp/sock" volumes/acme/v)" got.raw
same one.raw got.raw
qemu-io -f raw -c 'write -q -P 1 4M 64k' "$(uri "$tmp/sock" volumes/acme/v)"
stop "$serve_pid"
cowgate delete volumes/acme/now
protected web "${snap#*@}" || fail "its clone needs it"
cowgate --quiet flatten volumes/acme/child
cowgate --quiet flatten volumes/acme/v
clean web s1:false
reads volumes/acme/child one.raw

# Killed before the volume is visible: what was held is let go of by whoever makes the next one.
strace -f -o trace -e trace=renameat2 -e inject=renameat2:signal=KILL:when=1 \
    cowgate clone rbd/rbd/web@s1 volumes/acme/killed && fail "it wasn't killed"
must_fail 1 'there is no volume' cowgate info volumes/acme/killed
protected web s1 || fail "the hold came too late"
cowgate create volumes/acme/next --size 1M
clean web s1:false

# What Ceph's own tools rename meanwhile is known by what it is, not by who has its name now.
cowgate clone rbd/rbd/web@s1 volumes/acme/over
cowgate clone rbd/rbd/web@s1 volumes/acme/flat
rbd rename web moved
rbd snap rename moved@s1 moved@s2
reads volumes/acme/over one.raw
for other in '' web; do # nobody, and another
    [ -z "$other" ] || rbd create web --size 9M
    [ -z "$other" ] || rbd snap create --no-progress web@s1
    reads volumes/acme/over one.raw
    cowgate clone volumes/acme/over volumes/acme/overover
    reads volumes/acme/overover one.raw
    cowgate delete volumes/acme/overover
done
cowgate --quiet flatten volumes/acme/flat
must_fail 1 'moved@s2 is needed by a volume of host' cowgate delete rbd/rbd/moved@s2
cowgate delete volumes/acme/over
clean moved s2:false
clean web s1:false
reads volumes/acme/flat one.raw
cowgate delete volumes/acme/flat
cowgate delete --snapshots rbd/rbd/web
rbd rename moved web
rbd snap rename web@s2 web@s1

# Interrupted, a flatten leaves a clone that stands where it stood.
rbd create --object-size 4K --size 32M many
qemu-io -f raw -c 'write -q -P 3 0 32M' rbd:rbd/many
cowgate snapshot rbd/rbd/many@s
cowgate clone rbd/rbd/many@s rbd/rbd/many-clone
prefix=$(rbd info many-clone --format json | jq -r .block_name_prefix)
cowgate flatten rbd/rbd/many-clone 2>flatten.log &
flatten=$!
begun() { rados -p rbd ls | grep -q "^$prefix"; }
wait_for 30 begun
kill -TERM $flatten # SIGINT is ignored by what a script runs in the background
r=0
wait $flatten || r=$?
[ $r = 1 ] && grep -q 'flatten rbd/rbd/many-clone: interrupted' flatten.log || fail "$r: $(cat flatten.log)"
[ "$(parent many-clone)" = rbd/many@s ] || fail "$(rbd info many-clone)"
rbd export --no-progress many many.raw
reads rbd/rbd/many-clone many.raw
cowgate --quiet flatten rbd/rbd/many-clone
[ "$(parent many-clone)" = none ] || fail "not flat: $(rbd info many-clone)"
reads rbd/rbd/many-clone many.raw
rm many.raw out.raw
cowgate delete rbd/rbd/many-clone
cowgate delete --snapshots rbd/rbd/many

# A snapshot that is another one now, of the same name.
cowgate clone rbd/rbd/web@s1 volumes/acme/stale
rbd snap unprotect web@s1
rbd snap rm --no-progress web@s1
rbd snap create --no-progress web@s1
must_fail 1 'rbd/rbd/web@s1 has changed' cowgate export volumes/acme/stale -
cowgate delete volumes/acme/stale
clean web s1:false

# What isn't in Ceph is copied into it, and that is said.
cowgate --quiet import ./two.raw volumes/acme/two
point=$(cowgate --quiet backup volumes/acme/two)
nbdkit --foreground --unix "$tmp/nbd" file two.raw 2>nbdkit.log &
cleanup_fn stop $!
wait_for 30 nbd_answers "$tmp/nbd"
n=0
for source in ./two.raw volumes/acme/two "$point" "$(uri "$tmp/nbd")"; do
    cowgate clone "$source" "rbd/rbd/copy$n" 2>err.log
    grep -q '^copied: ' err.log || fail "it doesn't say that it copies: $(cat err.log)"
    rm -f out.raw
    rbd export --no-progress "copy$n" out.raw
    same two.raw out.raw
    cowgate delete "rbd/rbd/copy$((n++))"
done

# Other namespaces and pools of the cluster.
rbd namespace create rbd/ns
ceph osd pool create other 8
rbd pool init other
cowgate clone rbd/rbd/web@s1 rbd/rbd/ns/c
cowgate clone rbd/rbd/ns/c rbd/other/c
reads rbd/other/c <(cowgate --quiet export rbd/rbd/web@s1 -)
cowgate delete rbd/other/c
cowgate delete rbd/rbd/ns/c
clean web s1:false
