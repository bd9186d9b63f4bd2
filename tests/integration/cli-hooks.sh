#!/bin/bash
# --freeze and --thaw around snapshots: what they get, and that --thaw comes whatever happens.
. "$abs_srcdir/tests/functions.sh"

cowgate init
for v in a b; do cowgate create volumes/acme/$v --size 1M; done

cat >hook <<'SH'
#!/bin/bash
echo "$1:${COWGATE_TAKEN-}:${*:2}:$(cowgate list volumes/acme | grep -c @)" >>hooks
echo "said by $1"
SH
chmod +x hook
# says LINE ...: these hooks were run.
says() {
    printf '%s\n' "$@" >want
    diff want hooks || fail "other hooks were run"
    rm hooks
}
freeze='./hook freeze "$@"' thaw='./hook thaw "$@"'
names='volumes/acme/a@s volumes/acme/b@s'

cowgate snapshot --freeze "$freeze" --thaw "$thaw" $names >out 2>said
says "freeze::$names:0" "thaw:yes:$names:2"
[ ! -s out ] || fail "a hook's output is on standard output: $(cat out)"
grep -q 'said by freeze' said && grep -q 'said by thaw' said || fail "hooks can't say anything: $(cat said)"
# It fails: thaw.  Freeze fails: thaw, and no snapshot.  Thaw fails: the snapshot is there.
must_fail 1 'already' cowgate snapshot --freeze "$freeze" --thaw "$thaw" $names
says "freeze::$names:2" "thaw:no:$names:2"
must_fail 1 'no snapshot was taken: --freeze .* ended with status 3' \
    cowgate snapshot --freeze "$freeze; exit 3" --thaw "$thaw" volumes/acme/a@t
says "freeze::volumes/acme/a@t:2" "thaw:no:volumes/acme/a@t:2"
must_fail 1 'thaw.* ended with status 4' cowgate snapshot --thaw 'exit 4' volumes/acme/a@t
cowgate delete volumes/acme/a@t
cowgate snapshot --freeze "$freeze" volumes/acme/a@t
says "freeze::volumes/acme/a@t:2"
# What is wrong before is told before.
must_fail 2 'names no snapshot' cowgate snapshot --freeze "$freeze" --thaw "$thaw" volumes/acme/a
[ ! -e hooks ] || fail "frozen for nothing"

# Asked to end while --freeze runs: that is asked too, and thaw comes; asked again and again while
# --thaw runs: that is waited for, also when a terminal tells it the same.
cat >interrupt.py <<'PY'
import os, signal, subprocess, sys, time
def wait(path):
    while not os.path.exists(path):
        time.sleep(0.01)
sig, freeze, thaw = getattr(signal, sys.argv[1]), *sys.argv[2:4]
p = subprocess.Popen(["cowgate", "snapshot", "--freeze", freeze, "--thaw", thaw, "volumes/acme/b@u"],
                     start_new_session=True,
                     preexec_fn=lambda: [signal.signal(s, signal.SIG_DFL) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)])
wait("freezing")
p.send_signal(sig)
wait("thawing")
for sig in signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGINT:
    os.killpg(p.pid, sig)
    time.sleep(0.05)
open("go", "w")
sys.exit(p.wait(60))
PY
for sig in SIGTERM SIGQUIT; do
    rm -f freezing thawing go
    must_fail 1 'no snapshot was taken' nbd_python interrupt.py $sig "$freeze"'; touch freezing; exec sleep 1000' \
        'touch thawing; until [ -e go ]; do sleep 0.01; done; '"$thaw"
    says "freeze::volumes/acme/b@u:3" "thaw:no:volumes/acme/b@u:3"
done

# A backup takes its snapshot between them.
cowgate --quiet backup --freeze "$freeze" --thaw "$thaw" volumes/acme/a >point
says "freeze::volumes/acme/a:3" "thaw:yes:volumes/acme/a:4"
cowgate info "$(cat point)" >/dev/null
must_fail 1 'no snapshot was taken' cowgate backup --freeze false --thaw "$thaw" volumes/acme/a
says "thaw:no:volumes/acme/a:4"
r=0
cowgate --quiet backup --thaw 'exit 5' volumes/acme/a >point 2>said || r=$?
[ $r = 1 ] && grep -q 'status 5' said || fail "$r: $(cat said)"
cowgate info "$(cat point)" >/dev/null
cowgate --json list backups/acme/a >list.json
[ "$(jq length list.json)" -ge 2 ] || fail "$(cat list.json)"
