# A cluster without cowgate is kept in step with a volume's points by Ceph's own tool.
. "$abs_srcdir/tests/functions.sh"
. "$abs_srcdir/tests/integration/ceph-functions.sh"
start_ceph

# Two backups in one second would have names that don't say which is the older.
backup() { sleep 1.1; cowgate --json backup rbd/rbd/web backups/acme/web | jq -r '.point | split("/")[-1]'; }
content() { rbd export --no-progress "$1" - | sha256sum; }

cowgate init
rbd create --size 64M rbd/web
rbd_write web 1 0+24M 40M+4M
a=$(backup)
rbd_write web 2 5M+4K 30M+64K 60M+1M
rbd_write web trim 12M+4M 17M+1M
b=$(backup)
rbd resize --no-progress --size 81M rbd/web
rbd_write web 3 80M+1M
c=$(backup)
rbd resize --no-progress --allow-shrink --size 42M rbd/web
d=$(backup)
for p in "$a" "$b" "$c" "$d"; do cowgate export "backups/acme/web/$p" - | sha256sum >"sum.$p"; done

# The first step is the whole point, the others are diffs.
cowgate export "backups/acme/web/$a" - | rbd import --no-progress - rbd/copy
rbd snap create --no-progress "rbd/copy@$a"
cowgate export "backups/acme/web/$b" ./ab.diff --diff-from "$a" 2>said.log
grep "from $a to $b: 5 chunks differ" said.log
[ "$(stat -c %s ab.diff)" -lt $((18 << 20)) ]
rbd import-diff --no-progress ab.diff rbd/copy
[ "$(content rbd/copy)" = "$(cat "sum.$b")" ]
# Objects that are zeros there are gone here too.
rbd diff --format json rbd/copy | jq -e '[.[] | select(.exists == "true") | .offset / 4194304 | floor] |
    unique == [0, 1, 2, 4, 5, 7, 10, 15]'
must_fail 17 'exists' rbd import-diff --no-progress ab.diff rbd/copy
last=$b
for p in "$c" "$d"; do
    cowgate --quiet export "backups/acme/web/$p" - --diff-from "backups/acme/web/$last" |
        rbd import-diff --no-progress - rbd/copy
    [ "$(content rbd/copy)" = "$(cat "sum.$p")" ]
    last=$p
done
[ "$(content "rbd/copy@$c")" = "$(cat "sum.$c")" ]
[ "$(rbd snap ls rbd/copy --format json | jq -r '[.[].name] | join(" ")')" = "$a $b $c $d" ]

# Several steps at once, and back again.
cowgate export "backups/acme/web/$a" - | rbd import --no-progress - rbd/leap
rbd snap create --no-progress "rbd/leap@$a"
cowgate --quiet export backups/acme/web/latest - --diff-from "$a" | rbd import-diff --no-progress - rbd/leap
[ "$(content rbd/leap)" = "$(cat "sum.$d")" ]
cowgate --quiet export "backups/acme/web/$c" - --diff-from latest | rbd import-diff --no-progress - rbd/leap
[ "$(content rbd/leap)" = "$(cat "sum.$c")" ]

must_fail 1 'exists: use --force' cowgate export "backups/acme/web/$d" ./ab.diff --diff-from "$a"
cowgate --quiet export "backups/acme/web/$d" ./ab.diff --force --diff-from "$a"
must_fail 1 'a name only once' cowgate export "backups/acme/web/$a" ./x.diff --diff-from "$a"
must_fail 1 'no.*20200101T000000Z' cowgate export "backups/acme/web/$a" ./x.diff --diff-from 20200101T000000Z
must_fail 1 'is no point' cowgate export rbd/rbd/web ./x.diff --diff-from "$a"
other=$(cowgate --quiet backup rbd/rbd/web backups/other/web)
must_fail 1 'in another project' cowgate export "$other" ./x.diff --diff-from "backups/acme/web/$a"
[ ! -e x.diff ] && [ ! -e x.diff.cowgate-partial ]
