# Sourced, after tests/integration/ceph-functions.sh, by tests of writers to RBD images.

tool="$abs_srcdir/tests/integration/rbd-writers.py"

# configure SETTINGS: of rbd/ in the root.
configure() {
    jq --argjson rbd "$1" '.rbd = $rbd' "$COWGATE_ROOT/cowgate.json" >new.json
    mv new.json "$COWGATE_ROOT/cowgate.json"
}

says() { grep -q -- "$2" "$1" || fail "$1 does not say '$2': $(cat "$1")"; }

# start_holder NAME: a client in the background that writes a sector with each write_one.
start_holder() {
    rm -f commands
    mkfifo commands
    nbd_python "$tool" hold "$1" commands >hold.out &
    holder=$!
    exec 5>commands
    cleanup_fn eval 'exec 5>&-' # which ends it
    written=0
}
last_line() { [ "$(wc -l <hold.out)" = "$1" ] && tail -n 1 hold.out | grep -qx "$2"; }
# write_one RESULT: and it must go like this (a regular expression).
write_one() {
    echo >&5
    written=$((written + 1))
    wait_for 40 last_line "$written" "$1"
}
stop_holder() {
    exec 5>&-
    wait "$holder"
}
