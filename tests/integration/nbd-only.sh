#!/bin/bash
# A face that is told so has only the images that it's told, whatever lies beside and below them.
. "$abs_srcdir/tests/functions.sh"

cowgate init
for v in acme/web acme/web2 other/web; do
    cowgate create "volumes/$v" --size 1M
    cowgate snapshot "volumes/$v@s"
done
point=$(cowgate --quiet backup volumes/acme/web)

only=(--only volumes/acme/web@s --only "$point.qcow2" --only "$point")
start_serve s "${only[@]}"
nbdinfo --list --json "$(uri s)" | jq -r '.exports[]."export-name"' | sort >list
printf '%s\n' "$point" volumes/acme/web@s | sort | diff - list
for name in volumes/acme/web@s "$point" "$point.qcow2"; do
    nbdinfo --size "$(uri s "$name")" >size
done
for name in volumes/acme/web volumes/acme/web2 volumes/acme/web2@s volumes/other/web@s \
    volumes/acme/web@s.p1 volumes/acme/we backups/acme/web/latest "$point.p1" volumes/acme; do
    must_fail 1 . nbdinfo "$(uri s "$name")"
done
grep -q "volumes/acme/web2@s isn't served here" s.log || fail "$(cat s.log)"
must_fail 2 'is no name|not a name|volumes' cowgate serve --only volumes/acme --socket "$tmp/t"
must_fail 2 'needs a value' cowgate serve --only

mkdir m
cowgate mount m --read-only "${only[@]}"
cleanup_fn umount -q m
(cd m && find . -type f) | sort >list
printf '%s\n' "./$point" ./volumes/acme/web@s | sort | diff - list
[ "$(ls m)" = "backups
volumes" ] || fail "$(ls m)"
[ "$(ls m/volumes)" = acme ] || fail "$(ls m/volumes)"
head -c 4 "m/$point.qcow2" | cmp - <(printf 'QFI\xfb')
for name in volumes/acme/web volumes/other volumes/other/web@s volumes/acme/web2@s backups/other; do
    must_fail 1 'No such file' stat "m/$name"
done
cowgate umount m
