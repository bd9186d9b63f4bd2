# The life of volumes by the command alone.
. "$abs_srcdir/tests/functions.sh"

dd if=/dev/urandom of=a.raw bs=64K count=40 status=none
truncate -s 10M a.raw
[ -z "$(cowgate init)" ] || fail "init says something"
cowgate --quiet import ./a.raw volumes/acme/web
[ -z "$(cowgate create volumes/acme/data --size 1G 2>&1)" ] || fail "create says something"
[ -z "$(cowgate clone volumes/acme/web volumes/acme/copy 2>&1)" ] || fail "clone says something"
[ -z "$(cowgate snapshot volumes/acme/web@s1 2>&1)" ] || fail "snapshot says something"

# A SIZE that was rounded up is still known.
head -c 1000 a.raw >odd.raw
cowgate --quiet import ./odd.raw volumes/acme/odd
[ "$(cowgate --json info volumes/acme/odd | jq .size)" = 1024 ] || fail "odd size"
[ "$(cowgate --json info volumes/acme/odd | jq .original_size)" = 1000 ] || fail "original size"
cowgate export volumes/acme/odd - | head -c 1000 | cmp - odd.raw

# ... by whatever is made of it, until it's resized.
original() { cowgate --json info "$1" | jq .original_size; }
cowgate --quiet import ./odd.raw volumes/odd/file
cowgate snapshot volumes/odd/file@s
cowgate clone volumes/odd/file volumes/odd/c-volume
cowgate clone volumes/odd/file@s volumes/odd/c-snapshot
cowgate clone ./odd.raw volumes/odd/c-file
cowgate --quiet import volumes/odd/file volumes/odd/i-volume
cowgate --quiet import volumes/odd/file@s volumes/odd/i-snapshot
point=$(cowgate --quiet backup volumes/odd/file)
cowgate --quiet backup volumes/odd/file@s backups/odd/p-snapshot >/dev/null
cowgate --quiet backup ./odd.raw backups/odd/p-file >/dev/null
cowgate --quiet backup "$point" backups/odd/p-point >/dev/null
cowgate clone "$point" volumes/odd/c-point
cowgate clone volumes/odd/c-point volumes/odd/c-c-point
cowgate --quiet import "$point" volumes/odd/i-point
cowgate --quiet restore "$point" volumes/odd/r-point
cowgate rollback volumes/odd/file@s
for name in $(cowgate --json list | jq -r '.[].name | select(test("^[a-z]*/odd/"))'); do
    [ "$(original "$name")" = 1000 ] || fail "$name has an original size of $(original "$name")"
done
[ "$(cowgate --json list | jq '[.[] | select(.name | test("^[a-z]*/odd/"))] | length')" = 20 ] || fail "$(cowgate list)"
cowgate resize volumes/odd/file 4K
[ "$(original volumes/odd/file)" = 4096 ] || fail "a resized volume has an original size"
cowgate rollback volumes/odd/file@s
[ "$(original volumes/odd/file)" = 1024 ] || fail "a resized volume has an original size"
for v in $(cowgate --json list volumes/odd | jq -r '.[].name | select(contains("@") | not)'); do
    cowgate delete --snapshots "$v"
done
for p in $(cowgate --json list backups/odd | jq -r '.[].name | select(endswith("latest") | not)'); do
    cowgate delete "$p"
    emptied=${p%/*}
done

# A volume whose points are all deleted has none, and no latest.
[ "$(cowgate --json list "$emptied")" = '[]' ] && [ -z "$(cowgate list "$emptied")" ] || fail "$(cowgate list "$emptied")"
must_fail 1 "there is no backups/odd/.*/latest" cowgate list "$emptied/latest"
must_fail 1 'there is no backup of' cowgate list backups/odd/ghost

# A space that can't be reached doesn't hide the other.
cowgate list volumes >wanted
mv root/repo away
must_fail 1 'root/repo' cowgate list
! cowgate list >listed 2>/dev/null || fail "all was well"
same listed wanted
! cowgate --json list >listed.json 2>/dev/null || fail "all was well"
[ "$(jq length listed.json)" = "$(wc -l <wanted)" ] || fail "$(cat listed.json)"
start_serve "$tmp/away.s"
nbdinfo --list "$(uri "$tmp/away.s")" | grep -q '"volumes/acme/web"' || fail "$(nbdinfo --list "$(uri "$tmp/away.s")")"
grep -q 'some exports are not listed: .*root/repo' "$tmp/away.s.log" || fail "$(cat "$tmp/away.s.log")"
stop "$serve_pid"
mv away root/repo

# Standard input, with its length said.
cowgate --quiet import - volumes/acme/pipe --size 10M <a.raw
cowgate export volumes/acme/pipe - | cmp - a.raw
must_fail 1 'longer than --size' sh -c 'cowgate --quiet import - volumes/acme/pipe2 --size 1M <a.raw'
must_fail 1 'ended after 10485760 bytes, before --size \(20971520\)' sh -c 'cowgate --quiet import - volumes/acme/pipe2 --size 20M <a.raw'
must_fail 1 'no volume' cowgate info volumes/acme/pipe2
head -c 1000 a.raw | cowgate --quiet import - volumes/acme/pipe2 --size 1K
{ head -c 1000 a.raw; head -c 24 /dev/zero; } >1k.raw
cowgate export volumes/acme/pipe2 - | cmp - 1k.raw
cowgate delete volumes/acme/pipe2

# Export: sparse, and never over a file that's there.
cowgate --quiet export volumes/acme/web ./b.raw
same a.raw b.raw
[ "$(du -k b.raw | cut -f1)" -le 2700 ] || fail "the export isn't sparse"
must_fail 1 'use --force' cowgate export volumes/acme/web ./b.raw
cowgate --quiet export volumes/acme/copy ./b.raw --force
same a.raw b.raw
must_fail 1 'write ./c.raw' cowgate export volumes/acme/web c.raw

# To a larger export: what lies behind stays, and that is said.
cowgate create volumes/acme/larger --size 11M
start_serve "$tmp/larger"
qemu-io -f raw -c 'write -P 9 10M 1M' "$(uri "$tmp/larger" volumes/acme/larger)" >/dev/null
cowgate export volumes/acme/web "$(uri "$tmp/larger" volumes/acme/larger)" 2>said
grep -q 'is larger than the image: what lies behind its end was left as it is' said || fail "$(cat said)"
stop "$serve_pid"
cowgate export volumes/acme/larger - >larger.raw
head -c 10M larger.raw | cmp - a.raw
tail -c 1M larger.raw >tail.raw
is_all tail.raw 9
cowgate delete volumes/acme/larger
cowgate export volumes/acme/web ./a.again 2>said
! grep -q larger said || fail "$(cat said)"

# Change the head through an export, then look at the difference, and go back.
start_serve "$tmp/s"
qemu-io -f raw -c 'write -P 1 1M 8K' -c 'discard 0 64K' -c flush "$(uri "$tmp/s" volumes/acme/web)" >/dev/null
stop "$serve_pid"
cowgate diff volumes/acme/web@s1 volumes/acme/web >diff
grep -q '^1048576 8192 data$' diff || fail "diff: $(cat diff)"
[ "$(awk '{ n += $2 } END { print n }' diff)" = $((8192 + 65536)) ] || fail "diff: $(cat diff)"
# The same by comparing two things that aren't related.
cowgate --quiet diff ./a.raw volumes/acme/web >compared
[ "$(awk '{ n += $2 } END { print n }' compared)" = $((8192 + 65536)) ] || fail "compared: $(cat compared)"
cowgate --quiet export volumes/acme/web@s1 ./s1.raw
same a.raw s1.raw
cowgate --quiet export volumes/acme/copy ./copy.raw
same a.raw copy.raw
cowgate rollback volumes/acme/web@s1
cowgate --quiet export volumes/acme/web ./back.raw
same a.raw back.raw

# Two heads, and images of different sizes, are read and compared.
cowgate --quiet diff volumes/acme/copy volumes/acme/web >heads
[ ! -s heads ] || fail "equal heads differ: $(cat heads)"
cowgate --quiet diff volumes/acme/odd volumes/acme/web >longer
[ "$(tail -n 1 longer | awk '{ print $1 + $2 }')" = $((40 * 65536)) ] || fail "longer: $(tail -n 1 longer)"

# Resize, rename, delete.
cowgate resize volumes/acme/web 12M
cowgate --quiet export volumes/acme/web ./grown.raw
truncate -s 12M a12.raw && dd if=a.raw of=a12.raw conv=notrunc bs=1M status=none
same a12.raw grown.raw
cowgate rename volumes/acme/copy volumes/acme/other
must_fail 1 'exists|already' cowgate rename volumes/acme/other volumes/acme/web
must_fail 1 'has snapshots' cowgate delete volumes/acme/web
cowgate delete volumes/acme/web@s1
cowgate delete volumes/acme/web
cowgate --quiet export volumes/acme/other ./other.raw
same a.raw other.raw

# Listing: text and JSON.
cowgate list volumes/acme | grep -q '^volumes/acme/other ' || fail "list"
[ "$(cowgate --json list | jq -r '.[].name' | sort | tr '\n' ' ')" = \
    "volumes/acme/data volumes/acme/odd volumes/acme/other volumes/acme/pipe " ] ||
    fail "list: $(cowgate --json list)"
cowgate --help | grep -q 'cowgate'
cowgate --version | grep -q '^cowgate '
cowgate create --help | grep -q -- '--size SIZE'

# Clones of a file: flattened, it stands alone; a changed file is refused.
cowgate clone ./a.raw volumes/acme/file
cowgate clone ./a.raw volumes/acme/flat
cowgate --quiet flatten volumes/acme/flat
printf x | dd of=a.raw conv=notrunc bs=1 status=none
must_fail 1 'has changed since' cowgate export volumes/acme/file ./x.raw
[ ! -e x.raw ] && [ ! -e x.raw.cowgate-partial ] || fail "a failed export left something"
cowgate --quiet export volumes/acme/flat ./flat.raw
same flat.raw s1.raw

# A source that shrinks while it's read: its end is cut off when the copy has only begun.
head -c 400M /dev/zero | tr "\\0" x >shrinking.raw
cowgate --quiet import ./shrinking.raw volumes/acme/shrunk 2>shrunk.err &
importer=$!
until [ -e root/pool/acme/.draft-shrunk ]; do sleep 0.001; done
truncate -s 1M shrinking.raw
wait $importer && fail "half of the source was missing, and import said nothing"
grep -q shrinking.raw shrunk.err || fail "$(cat shrunk.err)"
must_fail 1 'shrunk' cowgate info volumes/acme/shrunk
[ ! -e root/pool/acme/.draft-shrunk ] || fail "a failed import left its draft"
