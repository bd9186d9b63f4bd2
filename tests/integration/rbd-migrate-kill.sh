#!/bin/bash
# kill -9 of a migration before each change that it makes to files and processes, and at moments in
# between, when it waits for the cluster: what it says of itself is true, the same command again ends
# right, and abort leaves nothing.
. "$abs_srcdir/tests/functions.sh"
. "$abs_srcdir/tests/integration/ceph-functions.sh"
. "$abs_srcdir/tests/integration/rbd-migrate-functions.sh"
requires strace -V
start_ceph
begin_small
rbd create warm --size 1M
rbd rm --no-progress warm

# What abort has to leave as it was.
everything() {
    rados -p rbd ls | sort
    find root root/pool -mindepth 1 -maxdepth 2 -not -name lock | sort
    find root/repo | sort
}
for source in volumes/acme/web "$point"; do # which make what stays: folders, parts of the pool
    cowgate --quiet migrate run "$source" rbd/rbd/one
    rbd rm --no-progress one
done
everything >before

# The state of an image by Ceph's own tool.
by_rbd() {
    rbd info "$1" >/dev/null 2>info.err || { grep -q 'No such file' info.err && echo absent || echo closed; return; }
    rbd status "$1" --format json | jq -r '.migration.state // "none"'
}

status_is_true() {
    local ours theirs
    ours=$(cowgate --json migrate status | jq -r '.[].state')
    theirs=$(by_rbd one)
    case "${ours:-nothing}/$theirs" in
        nothing/absent | nothing/none | preparing/* | prepared/prepared | executing/executing) ;;
        executed/executed | committing/executed | committing/none | aborting/* | */closed) ;;
        *) fail "status says '$ours', rbd '$theirs'" ;;
    esac
}

# Until it's so.  An OSD never forgets a client that died while its request to watch an image was under
# way (seen with Ceph 16), unless it's restarted: so it is, if the half a minute that others take isn't
# enough.
insist() {
    local start=$SECONDS restarted=
    until "$@"; do
        if [ $((SECONDS - start)) -gt 45 ] && [ -z "$restarted" ]; then
            stop_osd
            start_osd
            restarted=1
        fi
        [ $((SECONDS - start)) -lt 150 ] || return 1
        sleep 1
    done
}

removed() { # Ceph's tool may fail and have done it
    rbd rm --no-progress one 2>rm.err || [ "$(by_rbd one)" = absent ]
}
remove_one() {
    insist removed || fail "$1: $(cat rm.err; rbd status one; rbd lock ls one; rbd info one; rbd trash ls -a
        rados -p rbd ls; ps -eo pid,ppid,etimes,args | grep -E 'cowgate|rbd|nbdkit')"
}

content_is_right() {
    rbd export --no-progress one - | cmp - src.raw || fail "$1: the content is wrong"
    remove_one "$1" # who was killed has it open for half a minute
    [ "$(by_rbd one)" = absent ] || fail "$1: it is still there"
}

# After a kill of what was to become a whole image.
run_again() {
    local source=$1 what=$2
    status_is_true
    if cowgate migrate run "$source" rbd/rbd/one >again.log 2>&1; then
        content_is_right "$what"
    else # it was all but done
        grep -q 'exists already' again.log || fail "$what: $(cat again.log)"
        content_is_right "$what"
    fi
    nothing_left
}

# A client that died is remembered by the cluster for half a minute, as one that uses the image.
aborted() {
    cowgate migrate abort rbd/rbd/one >abort.log 2>&1 || grep -q 'there is no migration' abort.log
}
abort_it() {
    local what=$1
    status_is_true
    if cowgate migrate status | grep -q 'committing'; then
        must_fail 1 'is being committed' cowgate migrate abort rbd/rbd/one
        cowgate migrate commit rbd/rbd/one
    else
        insist aborted || fail "$what: $(cat abort.log)"
    fi
    [ "$(by_rbd one)" = absent ] || content_is_right "$what"
    nothing_left
    everything | diff before - || fail "$what: abort left something"
}

# killed_at CALL N COMMAND ...: false if it ended before its N-th CALL.
killed_at() {
    local call=$1 n=$2 r=0
    shift 2
    strace -o strace.log -e trace="$call" -e inject="$call:signal=KILL:when=$n" "$@" >killed.log 2>&1 || r=$?
    [ $r = 137 ] || [ $r = 0 ] || fail "$*: killed at $call $n: $r: $(cat killed.log)"
    [ $r = 137 ]
}

i=0
for call in renameat renameat2 linkat unlinkat rmdir clone kill; do
    for ((n = 1;; n++)); do
        source=volumes/acme/web
        [ $((i % 3)) != 0 ] || source=$point
        what="run from $source, killed at $call $n"
        killed_at $call $n cowgate migrate run $source rbd/rbd/one || break
        if [ $((i++ % 2)) = 0 ]; then run_again $source "$what"; else abort_it "$what"; fi
    done
    echo "$call: $n"
    content_is_right "$what"
done

# In between: while the cluster is asked to make, fill, commit and remove the image.
killed_after() {
    local ms=$1 pid
    shift
    "$@" >killed.log 2>&1 &
    pid=$!
    sleep "$(printf '%d.%03d' $((ms / 1000)) $((ms % 1000)))"
    kill -9 $pid 2>/dev/null || true
    wait $pid 2>/dev/null || true
}
for ms in $(seq 100 50 700); do
    killed_after "$ms" cowgate migrate run "$point" rbd/rbd/one
    status_is_true
    run_again "$point" "run, killed after $ms ms"
done
for ms in 100 250 400 550; do
    cowgate --quiet migrate prepare "$point" rbd/rbd/one --serve &
    prepare=$!
    wait_for 30 eval "cowgate migrate status | grep -q ' prepared '" || rados -p rbd ls
    killed_after "$ms" cowgate migrate abort rbd/rbd/one
    abort_it "abort, killed after $ms ms"
    wait $prepare || true # its server may have been ended by the abort that was killed
done
