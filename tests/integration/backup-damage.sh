# A byte changed in the repository: reading over NBD fails and the log names the object, verify ends
# with 1 and records it, the next backup stores it anew.
. "$abs_srcdir/tests/functions.sh"
requires jq --version

cowgate init
head -c 20M /dev/urandom >data
cowgate import ./data volumes/acme/web
point=$(cowgate backup volumes/acme/web)
for kind in chunks pages; do
    object=$(cd root/repo && find acme/$kind -type f | head -n 1)
    cp -a "root/repo/$object" kept
    for at in 0 6 9 21 60 88 93 200; do
        cp -a kept "root/repo/$object"
        byte=$(od -An -tu1 -j $at -N 1 "root/repo/$object")
        printf "\\x$(printf %02x $((byte ^ 1)))" |
            dd of="root/repo/$object" bs=1 seek=$at conv=notrunc status=none
        must_fail 1 "$object" cowgate export "$point" -
    done
    start_serve "$tmp/$kind"
    must_fail 1 "Input/output error" nbdcopy "$(uri "$tmp/$kind" "$point")" null:
    stop "$serve_pid"
    grep -q "$object" "$tmp/$kind.log" || fail "the log doesn't name $object"
    must_fail 1 "$object" cowgate verify
    [ "$(ls root/repo/acme/damaged | wc -l)" = 1 ]
    cowgate --json backup volumes/acme/web >result
    [ "$(jq .incremental result)" = true ]
    same <(cowgate export backups/acme/web/latest -) data
    cowgate verify >/dev/null
    [ -z "$(ls root/repo/acme/damaged)" ]
done

# Nothing is written where nothing may be.
mkdir ro
mount --bind root/repo ro
cleanup_fn umount ro
mount -o remount,bind,ro ro
COWGATE_ROOT=$tmp/second cowgate init --repository "$tmp/ro"
export COWGATE_ROOT=$tmp/second
cowgate list backups | grep -q "$point"
same <(cowgate export backups/acme/web/latest -) data
must_fail 1 "Read-only file system" cowgate backup ./data backups/acme/data
cp -a root/repo/acme/chunks saved
find root/repo/acme/chunks -type f -exec truncate -s -1 {} +
must_fail 1 "damaged: acme/chunks" cowgate verify
must_fail 1 "isn't recorded in the repository" cowgate verify
damaged=$(cowgate --quiet verify 2>/dev/null | grep -c damaged: || :)
[ "$damaged" = "$(find saved -type f | wc -l)" ] || fail "verify named $damaged"
cp -a saved/. root/repo/acme/chunks/
cowgate verify >/dev/null
must_fail 1 "Read-only file system" cowgate delete "$point"
