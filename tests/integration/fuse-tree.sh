# The tree: what is listed, what is found, with which sizes and times, and that nothing can be made.
. "$abs_srcdir/tests/functions.sh"
. "$abs_srcdir/tests/integration/fuse-functions.sh"

a_disk disk.raw
cowgate init
before=$(date +%s)
cowgate --quiet import ./disk.raw volumes/acme/web
cowgate snapshot volumes/acme/web@s1
cowgate create volumes/other/big --size 1T
first=$(cowgate --quiet backup volumes/acme/web)
dd if=/dev/urandom of=noise bs=1M count=1 status=none

start_mount
cd mnt
# (The snapshot that the next backup will compare with has a name of its own.)
list=$(find . -mindepth 1 | grep -v '@cowgate-' | sort | tr '\n' ' ')
expected="./backups ./backups/acme ./backups/acme/web ./$first ./backups/acme/web/latest ./volumes \
./volumes/acme ./volumes/acme/web ./volumes/acme/web@s1 ./volumes/other ./volumes/other/big "
[ "$list" = "$expected" ] || fail "the tree is $list"
[ "$(stat -c '%s %a %F' volumes/acme/web)" = "67108864 600 regular file" ] || fail "volume"
[ "$(stat -c '%s %a %F' volumes/acme/web@s1)" = "67108864 400 regular file" ] || fail "snapshot"
[ "$(stat -c '%s %a %F' "$first")" = "67108864 400 regular file" ] || fail "point"
[ "$(stat -c '%s' volumes/other/big)" = $((1 << 40)) ] || fail "1 TiB"
[ "$(stat -c '%F' backups/acme/web)" = directory ] || fail "directory"
for name in volumes/acme/web volumes/acme/web@s1 "$first"; do
    t=$(stat -c %Y "$name")
    [ "$t" -ge "$before" ] && [ "$t" -le "$(date +%s)" ] || fail "$name was made at $t"
done
[ "$(readlink backups/acme/web/latest)" = "${first##*/}" ] || fail "latest"
df . >/dev/null

# Partitions are found, and not listed.
[ "$(stat -c %s volumes/acme/web.p1)" = $((81920 * 512)) ] || fail "web.p1"
[ "$(stat -c %s volumes/acme/web@s1.p2)" = $((40960 * 512)) ] || fail "web@s1.p2"
[ "$(stat -L -c %s backups/acme/web/latest.p1)" = $((81920 * 512)) ] || fail "latest.p1"
same volumes/acme/web.p1 "$tmp/part.img"
same "$first.p1" "$tmp/part.img"
for name in volumes/acme/web volumes/acme/web@s1 "$first" backups/acme/web/latest; do
    cp "$name" "$tmp/copy"
    same "$tmp/copy" "$tmp/disk.raw"
done

# What isn't there.
for name in volumes/acme/web.p3 volumes/acme/web@s2 volumes/acme/nothing volumes/nobody nothing \
    volumes/acme/web@s1.p9 backups/acme/web/20200101T000000Z volumes/acme@s1 volumes.p1 \
    volumes/acme/.hidden backups/acme/web/latest.p7; do
    [ ! -e "$name" ] || fail "$name is there"
done

# Nothing is made, named, deleted or changed here.
for command in "touch volumes/acme/new" "mkdir volumes/new" "rm -f volumes/acme/web" \
    "mv volumes/acme/web volumes/acme/moved" "ln -s x volumes/acme/link" "rmdir volumes/other" \
    "ln volumes/acme/web volumes/acme/hard" "chmod 777 volumes/acme/web" "truncate -s 1M volumes/acme/web" \
    "mknod volumes/acme/pipe p"; do
    must_fail 1 'not permitted' $command
done
must_fail 1 'Read-only' dd if="$tmp/noise" of=volumes/acme/web@s1 conv=notrunc status=none
must_fail 1 'Read-only' dd if="$tmp/noise" of="$first" conv=notrunc status=none
truncate -s 64M volumes/acme/web

# A change of a volume shows in latest at the next look-up, not in what was there before.
dd if="$tmp/noise" of=volumes/acme/web bs=1M seek=50 conv=notrunc status=none
cd "$tmp"
cp disk.raw disk3.raw
dd if=noise of=disk3.raw bs=1M seek=50 conv=notrunc status=none
second=$(cowgate --quiet backup volumes/acme/web)
latest_is() { [ "$(readlink mnt/backups/acme/web/latest)" = "$1" ]; }
wait_for 10 latest_is "${second##*/}"
same mnt/backups/acme/web/latest disk3.raw
same "mnt/$first" disk.raw
same mnt/volumes/acme/web@s1 disk.raw

# A volume that is deleted and made again is another file.
cowgate delete volumes/other/big
cowgate create volumes/other/big --size 32M
size_is() { [ "$(stat -c %s "$1")" = "$2" ]; }
wait_for 10 size_is mnt/volumes/other/big $((32 << 20))
cmp -n $((32 << 20)) mnt/volumes/other/big /dev/zero
stop_mount

# One project alone, read-only.
start_mount ro,project=acme
[ "$(ls mnt/volumes mnt/backups | tr -d '\n')" = "mnt/backups:acmemnt/volumes:acme" ] || fail "project"
[ ! -e mnt/volumes/other/big ] || fail "another project shows"
must_fail 1 'Read-only' dd if=noise of=mnt/volumes/acme/web conv=notrunc status=none
must_fail 1 'Read-only' touch mnt/volumes/acme/new
[ "$(stat -c %a mnt/volumes/acme/web)" = 400 ] || fail "mode"
same mnt/volumes/acme/web disk3.raw
stop_mount
