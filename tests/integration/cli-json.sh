# With --json standard output is one JSON document with the documented keys, and neither more nor
# fewer: each must be in the command's paragraph of the man page.
. "$abs_srcdir/tests/functions.sh"
pod=$abs_srcdir/docs/cowgate.pod

cowgate init
head -c 5M /dev/urandom >disk.raw
echo 'start=2048, size=4096' | sfdisk -q --label gpt disk.raw
cowgate --quiet import ./disk.raw volumes/acme/web
cowgate clone volumes/acme/web volumes/acme/clone
cowgate snapshot volumes/acme/web@s1
truncate -s 6M larger.raw

# paragraph COMMAND: what the man page's section JSON says of it.
paragraph() {
    awk -v item="=item B<$1>" '/^=head1/ { json = /JSON/ } /^=(item|back)/ { mine = json && $0 == item }
        mine' "$pod"
}

# keys COMMAND WHERE "KEY ..." ARGS ...: cowgate --json COMMAND ARGS prints one document, whose objects
# at WHERE (a jq path) have exactly these keys.
keys() {
    local command=$1 where=$2 expected=$3 key got
    shift 3
    cowgate --json "$command" "$@" >out.json 2>err.log || fail "$command $*: $(cat err.log)"
    [ "$(jq -s length out.json)" = 1 ] || fail "$command $* prints $(cat out.json)"
    got=$(jq -r "[$where | keys] | unique | if length == 1 then .[0] | join(\" \") else tojson end" out.json)
    expected=$(tr ' ' '\n' <<<"$expected" | sort | tr '\n' ' ')
    [ "$got " = "$expected" ] || fail "$command $*: $where has $got, not $expected"
    for key in $got; do
        paragraph "$command" | grep -q "C<$key>" || fail "$key of $command isn't documented"
    done
}

volume='name uuid size original_size created parent depth snapshots layers allocated
used shared reserve'
point='name type size original_size sequence time source parent tool session era read_only'

keys backup . 'point incremental reason warning size bytes_read chunks_read bytes_stored chunks_stored
pages_stored chunks_known chunks_audited bytes_audited' volumes/acme/web
keys backup . 'point incremental reason warning size bytes_read chunks_read bytes_stored chunks_stored
pages_stored chunks_known chunks_audited bytes_audited' ./disk.raw backups/acme/file
latest=$(jq -r .point out.json)

keys list '.[] | select(.name | test("@|^backups"))' 'name size time description unfinished'
keys list '.[]' 'name size time description unfinished used shared reserve' volumes/acme/clone
keys list '.[]' 'name size time description unfinished' backups/acme
keys info . "$volume" volumes/acme/web
keys info '.snapshots[]' 'name size time' volumes/acme/web
keys info . "$volume" volumes/acme/clone
keys info . 'name uuid volume size original_size created parent layers' volumes/acme/web@s1
keys info . "$point" backups/acme/web/latest
keys info . "$point" "$latest"
keys info . 'name type size virtual_size time points read_only' "$latest.qcow2"
keys info . 'name size immutable' volumes/acme/web.p1
keys info . 'name size immutable' ./disk.raw
keys info . 'root pool'
keys info .pool 'path size free_bytes percent warn full volumes reserve overcommitted_bytes'
keys diff '.[]' 'offset length type' volumes/acme/web ./larger.raw
cowgate --json diff volumes/acme/web@s1 volumes/acme/web | jq -e '. == []' >/dev/null || fail "no difference"

restore='point target bytes_read bytes_skipped bytes_trusted distrust bytes_fetched chunks_fetched bytes_written tail_kept'
keys restore . "$restore" backups/acme/web/latest volumes/acme/back
keys restore . "$restore" backups/acme/web/latest ./larger.raw
jq -e '.tail_kept and .target == "./larger.raw" and .bytes_written == 5242880' out.json >/dev/null || fail "$(cat out.json)"

keys verify . 'points pages chunks bytes damaged warning'
jq -e '.points == 2 and .damaged == []' out.json >/dev/null || fail "$(cat out.json)"
chunk=$(find root/repo -path '*/chunks/*' -type f | head -n 1)
printf x | dd of="$chunk" bs=1 seek=200 conv=notrunc status=none
! cowgate --json verify >out.json 2>/dev/null || fail "verify didn't find the damage"
jq -e '.damaged | length > 0 and all(.[]; keys == ["object", "why"])' out.json >/dev/null || fail "$(cat out.json)"

# A volume that somebody writes names the process.
start_serve "$tmp/s"
nbd_python - "$(uri "$tmp/s" volumes/acme/clone)" <<'PY'
import nbd, subprocess, sys, json
h = nbd.NBD()
h.connect_uri(sys.argv[1])
h.pwrite(b"x" * 512, 0)
info = json.loads(subprocess.check_output(["cowgate", "--json", "info", "volumes/acme/clone"]))
assert "writer" in info, info
PY
paragraph info | grep -q 'C<writer>' || fail "writer isn't documented"
stop "$serve_pid"

# What prints nothing, prints nothing; an error leaves standard output empty.
[ -z "$(cowgate --json create volumes/acme/new --size 1M)" ] || fail "create prints"
[ -z "$(cowgate --json clone volumes/acme/new volumes/acme/new2)" ] || fail "clone prints"
[ -z "$(cowgate --json snapshot volumes/acme/new@s)" ] || fail "snapshot prints"
for failing in 'info volumes/acme/ghost' 'list volumes/acme/ghost' 'diff volumes/acme/ghost ./disk.raw' \
    'backup volumes/acme/ghost' 'restore backups/acme/web/20000101T000000Z ./ghost' 'verify volumes'; do
    ! cowgate --json $failing >out.json 2>/dev/null || fail "$failing succeeded"
    [ ! -s out.json ] || fail "$failing prints $(cat out.json)"
done
