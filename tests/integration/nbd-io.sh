#!/bin/bash
# Bytes in and out of a volume by real clients: nbdcopy, qemu-img, qemu-io, and fio with four
# connections that verifies what it wrote.
. "$abs_srcdir/tests/functions.sh"

cowgate init
# 64 MiB with data, zeros that are written, and holes.
truncate -s 64M disk
head -c 5M /dev/urandom | dd of=disk bs=1M seek=3 conv=notrunc status=none
head -c 3M /dev/urandom | dd of=disk bs=1M seek=40 conv=notrunc status=none
head -c 512 /dev/urandom | dd of=disk bs=512 seek=131071 conv=notrunc status=none
cowgate create volumes/acme/web --size 64M
start_serve nbd.sock
web=$(uri nbd.sock volumes/acme/web)

# In and out; holes stay holes.
nbdcopy --flush disk "$web"
nbdcopy "$web" out
same disk out
qemu-img map --output=json "$web" >map.json
jq -e 'all(.[]; .data or .zero) and ([.[] | select(.data) | .length] | add) < 9 * 1048576' map.json \
    >/dev/null || fail "$(cat map.json)"
jq -e '.[0] | .start == 0 and .length == 3145728 and (.data | not)' map.json >/dev/null ||
    fail "the first hole: $(cat map.json)"
allocated=$(du -k --exclude=.spare "$COWGATE_ROOT/pool" | tail -n 1 | cut -f1)
[ "$allocated" -lt 12000 ] || fail "the pool takes $allocated KiB"

# Writes, zeroes and discards, aligned and not, against the same on a file.  What was discarded must
# read the same twice; here it reads as zeros.
ops=(-c 'write -P 1 0 64k' -c 'write -P 2 1000k 3M' -c 'write -P 3 4608 512'
    -c 'write -z 2M 1M' -c 'write -z -u 5M 64k' -c 'write -P 4 66846720 256k' -c 'write -f -P 5 10M 8k'
    -c 'write -z -u 41M 512' -c 'write -z 42M 1536' -c 'flush')
qemu-io -f raw "${ops[@]}" "$web" >qemu-io.log
qemu-io -f raw "${ops[@]}" disk >>qemu-io.log
qemu-io -f raw -c 'discard 20M 8M' -c 'discard 3M 64k' -c 'discard 4097k 3k' -c 'flush' "$web" \
    >>qemu-io.log
qemu-io -f raw -c 'read -P 0 20M 8M' -c 'read -P 5 10M 8k' -c 'read -P 0 2M 1M' "$web" >read.log
! grep -q 'failed' read.log || fail "$(cat read.log)"
nbdcopy "$web" out
nbdcopy "$web" again
same out again
# All but what was discarded is the file's.
for f in out disk; do
    truncate -s 64M $f
    fallocate --punch-hole --offset 3M --length 64K $f
    fallocate --punch-hole --offset 4096K --length 8K $f
    fallocate --punch-hole --offset 20M --length 8M $f
done
same out disk

# Beyond the end.
must_fail 1 'beyond|ENOSPC|Input/output|Invalid|No space|past' \
    nbd_python -c '
import nbd, sys
h = nbd.NBD()
h.set_strict_mode(0)
h.connect_uri(sys.argv[1])
h.pwrite(bytes(4096), 64 << 20)' "$web"
must_fail 1 'Invalid|Input/output' nbd_python -c '
import nbd, sys
h = nbd.NBD()
h.set_strict_mode(0)
h.connect_uri(sys.argv[1])
h.pread(4096, (64 << 20) - 512)' "$web"

# Four clients at once, each over its own connection, random writes verified afterwards.
fio --name=verify --ioengine=nbd --uri="$web" --rw=randwrite --bsrange=512-64k --bs_unaligned=0 \
    --blockalign=512 --serialize_overlap=1 --iodepth=16 --numjobs=4 --size=8m --offset=16m --offset_increment=8m \
    --verify=crc32c --verify_fatal=1 --do_verify=1 --randseed=7 --output=fio.log ||
    fail "$(cat fio.log)"
fio --name=mixed --ioengine=nbd --uri="$web" --rw=randrw --bs=4k --iodepth=32 --numjobs=4 \
    --size=8m --offset=16m --offset_increment=8m --verify=crc32c --verify_fatal=1 --output=fio.log ||
    fail "$(cat fio.log)"

# Flushed, closed, opened again: the same.
nbdcopy "$web" before
stop "$serve_pid"
cowgate --quiet export volumes/acme/web ./after
same before after
