# Bad input: each with its own clear message, the right exit status, and nothing changed.
. "$abs_srcdir/tests/functions.sh"

# A missing root, one that isn't a root, one that can't be read.
must_fail 1 'no root at .*: make one with' cowgate list
mkdir empty
must_fail 1 'is not a root \(no cowgate.json\)' cowgate --root empty list
cowgate init
must_fail 1 'is a root already' cowgate init
mkdir full && touch full/file
must_fail 1 'is neither a root nor empty \(it has file\)' cowgate --root full init
cp cowgate.json . 2>/dev/null || cp root/cowgate.json .
echo '{"format": 2, "repository": "repo"}' >root/cowgate.json
must_fail 1 'has format 2, this cowgate knows up to 1' cowgate list
echo '{"format": 1,' >root/cowgate.json
must_fail 1 'cowgate.json: line' cowgate list
cp cowgate.json root/
if command -v setpriv >/dev/null; then
    chmod 755 "$tmp"
    chmod 700 root
    must_fail 1 'root.*: Permission denied' env -u COWGATE_RUN setpriv --reuid 65534 --clear-groups \
        "$(command -v cowgate)" --root "$tmp/root" list
fi

# A space whose module isn't installed; all else works.
must_fail 1 'rbd/ needs a module that can.t be loaded' env COWGATE_MODULES="$tmp" cowgate list rbd
[ -z "$(COWGATE_MODULES=$tmp cowgate list)" ] || fail "there is something in an empty root"

# A repository of a newer format.
repo=$tmp/root/repo
sed -i 's/"format": *1/"format": 2/' "$repo/repository.json"
must_fail 1 'format 2' cowgate list backups
must_fail 1 'format 2' cowgate --root "$tmp/other" init --repository "$repo"
[ ! -e "$tmp/other" ] || fail "a failed init left something"
sed -i 's/"format": *2/"format": 1/' "$repo/repository.json"
must_fail 1 's3://bucket: write an absolute path' cowgate --root other init --repository s3://bucket

# Two at once: one makes the root, the other finds it.
for i in $(seq 10); do
    cowgate --root "twice$i" init 2>a.err & a=$!
    cowgate --root "twice$i" init 2>b.err & b=$!
    failures=0
    wait $a || failures=$((failures + 1))
    wait $b || failures=$((failures + 1))
    [ $failures = 1 ] || fail "$failures of two inits failed: $(cat a.err b.err)"
    cowgate --root "twice$i" create volumes/acme/web --size 1M
    cowgate --root "twice$i" list backups
done

# Names.
cowgate create volumes/acme/web --size 1M
listing() { cowgate --json list | jq 'map(del(.used))'; } # the first who locks a volume allocates a block for that
before=$(listing)
a129=$(printf 'a%.0s' $(seq 129))
must_fail 2 'an argument is empty' cowgate info ''
must_fail 2 'an argument is empty' cowgate export volumes/acme/web ''
must_fail 2 'value of an option is empty' cowgate init --repository ''
must_fail 2 'value of an option is empty' cowgate serve --project=
must_fail 2 '--root is empty' cowgate --root '' list
must_fail 1 'more than 128 characters' cowgate create "volumes/acme/$a129" --size 1M
must_fail 1 'begins with no space' cowgate info a/b/c/d/e
must_fail 1 'for a file write ./disk.raw' cowgate import disk.raw volumes/acme/new
must_fail 1 'too many parts' cowgate create volumes/acme/web/x --size 1M
must_fail 1 "doesn't begin with a letter or digit" cowgate create volumes/../web --size 1M
must_fail 1 'has a character other than letters' cowgate create 'volumes/acme/we b' --size 1M
must_fail 1 'open ../ghost: No such file or directory' cowgate import ../ghost volumes/acme/new
must_fail 1 'there is no volume volumes/acme/ghost$' cowgate info volumes/acme/ghost
must_fail 1 'read .*ceph.conf|needs a module' env CEPH_CONF=./no-ceph.conf cowgate info rbd/pool/image
must_fail 1 'configuration has no such space' cowgate serve rbd/pool/image --socket ./sock
must_fail 1 "the repository has no project 'acme'" cowgate info backups/acme/web/latest
must_fail 1 'there is no partition table' cowgate info volumes/acme/web.p1
must_fail 1 'is a partition' cowgate delete volumes/acme/web.p1
must_fail 1 'there is no snapshot volumes/acme/web@ghost' cowgate info volumes/acme/web@ghost
must_fail 1 'there is a volume volumes/acme/web already' cowgate create volumes/acme/web --size 1M
must_fail 1 'there is a volume volumes/acme/web already' cowgate clone volumes/acme/web volumes/acme/web
must_fail 1 'there is no volume volumes/acme/ghost' cowgate list volumes/acme/ghost

# Sizes.
must_fail 2 'size 0' cowgate create volumes/acme/new --size 0
must_fail 2 'not a multiple of 512' cowgate create volumes/acme/new --size 1000
must_fail 2 'is not a size' cowgate create volumes/acme/new --size lots
must_fail 2 'is not a size' cowgate resize volumes/acme/web lots
must_fail 2 'is not a size' cowgate import - volumes/acme/new --size lots
must_fail 2 'is not a size' cowgate backup --rate lots volumes/acme/web
must_fail 2 'larger than 4 EiB' cowgate create volumes/acme/new --size 99999999T
must_fail 1 'is a path, and only a name can stand here' cowgate create ./disk.raw --size 1M
must_fail 2 "partitions aren't listed" cowgate list volumes/acme/web.p1
must_fail 1 'it has 1048576 bytes, and volumes only grow' cowgate resize volumes/acme/web 512K
: >empty.raw
must_fail 1 'empty.raw is empty: an image has at least 512 bytes' cowgate import ./empty.raw volumes/acme/new

# A run directory that others can write to is our own all the same.
mkdir -m 1777 "$COWGATE_RUN/shared"
head -c 1K /dev/zero >kib.raw
must_fail 1 "run directory .*/shared can be written by others: chmod 700 .*/shared" env COWGATE_RUN="$COWGATE_RUN/shared" \
    cowgate --quiet import ./kib.raw volumes/acme/new

# More layers than files may be open.
cowgate create volumes/acme/deep --size 1M
for i in {2..40}; do cowgate resize volumes/acme/deep ${i}M; done
few() { (ulimit -n 64; exec cowgate "$@"); }
must_fail 1 '40 layers take two each; raise the limit' few export volumes/acme/deep ./deep.raw
cowgate --quiet import volumes/acme/deep volumes/acme/shallow
few --quiet export volumes/acme/shallow ./shallow.raw
for v in deep shallow; do cowgate delete volumes/acme/$v; done

# A backup of what isn't there says that, and nothing of its own snapshots.
must_fail 1 'there is no volume volumes/acme/ghost$' cowgate backup volumes/acme/ghost

# Standard input where it can't be.
for command in 'info -' 'diff - volumes/acme/web' 'diff volumes/acme/web -' 'backup -' \
    'backup - backups/acme/new' 'export - ./out.raw' 'clone - volumes/acme/new'; do
    must_fail 2 "can't take standard input: import it" cowgate $command
done

# A path that JSON can't carry: said before anything is done, and only where JSON is needed.
bytes=$(printf './\377.raw')
head -c 1K /dev/zero >"$bytes"
must_fail 1 "isn't UTF-8" cowgate clone "$bytes" volumes/acme/new
must_fail 1 "isn't UTF-8" cowgate --json info "$bytes"
must_fail 1 "isn't UTF-8" cowgate --json restore backups/acme/web/latest "$bytes.new"
cowgate --quiet import "$bytes" volumes/acme/bytes
cowgate --quiet export volumes/acme/bytes "$bytes.out"
cowgate delete volumes/acme/bytes

# Usage: 2, and how to do it right.
must_fail 2 'no command' cowgate
must_fail 2 "unknown command 'frob'" cowgate frob
must_fail 2 'unknown option --frob' cowgate --frob list
must_fail 2 'unknown option --frob' cowgate list --frob
must_fail 2 'needs --size' cowgate create volumes/acme/new
must_fail 2 'needs a value' cowgate create volumes/acme/new --size
must_fail 2 'something is missing' cowgate rename volumes/acme/web
must_fail 2 'too many arguments' cowgate info volumes/acme/web more
must_fail 2 'names no snapshot' cowgate snapshot volumes/acme/web
must_fail 2 'give --size' cowgate import - volumes/acme/new

# Serving.
must_fail 2 'can be reached from outside' cowgate serve --listen 0.0.0.0:10809
must_fail 2 'write ADDR:PORT' cowgate serve --listen 127.0.0.1
must_fail 1 'there is no volume volumes/acme/ghost' cowgate serve volumes/acme/ghost --socket s
must_fail 1 'at most 107 bytes' cowgate serve --socket "$tmp/$a129"
must_fail 2 'exclude each other' cowgate serve --socket s --listen 127.0.0.1:1
touch file
must_fail 1 'is no socket' cowgate serve --socket file
must_fail 2 'not the name of a project' cowgate serve --project a/b --socket s
must_fail 2 'not the name of a project' cowgate mount --project a/b mnt
must_fail 2 'from 1 to 9999' cowgate serve --threads 0

# A map that is missing or damaged is never "all absent".
cowgate create volumes/acme/map --size 1M
map=$(ls root/pool/acme/map/*.map)
cp "$map" saved.map
rm "$map"
must_fail 1 '\.map: No such file or directory' cowgate export volumes/acme/map ./out.raw
head -c 100 saved.map >"$map"
must_fail 1 'the map is damaged: it has only 100 bytes' cowgate export volumes/acme/map ./out.raw
cp saved.map "$map"
cowgate --quiet export volumes/acme/map ./out.raw
cowgate delete volumes/acme/map

[ "$(listing)" = "$before" ] || fail "something changed: $(cowgate list)"
[ -z "$(find root -name '*.tmp*' -o -name '.draft*' -o -name '.trash*')" ] || fail "leftovers: $(find root)"
