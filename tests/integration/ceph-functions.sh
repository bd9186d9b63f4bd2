# Sourced, right after tests/functions.sh, by tests that need a Ceph cluster: a whole one in a folder,
# on loopback, as root: a monitor, a manager, an OSD (8 GiB, or CEPH_OSD_BYTES; sparse), a pool named
# rbd.
#
#     start_ceph [N]        $CEPH_CONF and $ceph are set; it ends with the test.  N, from 1 on, is for
#                           another cluster beside the first; use_ceph [N] goes to one of them
#     stop_osd, start_osd   kill -9, and back again
#     freeze_osd, thaw_osd  it stays connected but answers nothing
#
# The test goes on in a network of its own, where all ports are free, and with processes and mounts
# of its own: none outlives it, however it ends.

_alone=(unshare --net --mount-proc --pid --fork --kill-child)
if [ -z "${CEPH_ALONE-}" ]; then
    requires "${_alone[@]}" true
    cd "$OLDPWD"
    rm -rf "$tmp" "$COWGATE_RUN"
    CEPH_ALONE=1 exec "${_alone[@]}" bash "$0" "$@"
fi
ip link set lo up

use_ceph() {
    ceph=$tmp/ceph${1-}
    export CEPH_CONF=$ceph/ceph.conf
}
use_ceph

_ceph_keys() {
    local tool=(ceph-authtool "$ceph/keyring") type=()
    [ -z "${CEPH_KEY_TYPE-}" ] || type=(--key-type "$CEPH_KEY_TYPE")
    "${tool[@]}" --create-keyring --gen-key "${type[@]}" -n mon. --cap mon 'allow *'
    "${tool[@]}" --gen-key "${type[@]}" -n client.admin --cap mon 'allow *' --cap osd 'allow *' \
        --cap mgr 'allow *'
    "${tool[@]}" --gen-key "${type[@]}" -n mgr.x --cap mon 'allow profile mgr' --cap osd 'allow *'
    ceph-authtool --create-keyring "$ceph/osd/keyring" --gen-key "${type[@]}" -n osd.0
}

_ceph_configure() {
    fsid=$(cat /proc/sys/kernel/random/uuid)
    cat >"$CEPH_CONF" <<C
[global]
fsid = $fsid
mon host = [v2:127.0.0.1:$((3300 + ${1-0})),v1:127.0.0.1:$((6789 + ${1-0}))]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
keyring = $ceph/keyring
run dir = $ceph/run
log file = $ceph/\$name.log
admin socket = $ceph/run/\$name.\$pid.asok
pid file = $ceph/run/\$name.pid
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd crush chooseleaf type = 0
mon allow pool size one = true
mon allow pool delete = true
mon data avail warn = 1
mon data avail crit = 1
# Small and quick: decide at once, poll often, look for nothing that can't be wrong yet.
paxos propose interval = 0.02
paxos min wait = 0.01
[client]
log file = /dev/null
admin socket =
[mon]
mon data = $ceph/mon
[mgr]
mgr data = $ceph/mgr
[osd]
osd data = $ceph/osd
bluestore block size = ${CEPH_OSD_BYTES-8589934592}
osd memory target = 939524096
bluestore fsck on mkfs = false
bdev aio poll ms = 10
osd mclock skip benchmark = true
# One OSD alone that was frozen for longer than its lease may wait for ever for the next.
osd pool default read lease ratio = 5
C
}

# From /: Debian's Ceph 20 looks for its classes in lib/..., without the slash.
start_osd() {
    (cd / && ceph-osd -i 0 --keyring "$ceph/osd/keyring") >>"$ceph/start.log" 2>&1
}

stop_osd() {
    kill -9 "$(cat "$ceph/run/osd.0.pid")"
    rm -f "$ceph/run/osd.0.pid"
}

freeze_osd() { kill -STOP "$(cat "$ceph/run/osd.0.pid")"; }
thaw_osd() { kill -CONT "$(cat "$ceph/run/osd.0.pid")"; }

_stop_ceph() {
    local f
    for f in "$tmp"/ceph*/run/*.pid; do
        [ -e "$f" ] && kill -9 "$(cat "$f")" 2>/dev/null
    done
    true
}

_start_ceph() {
    local osd
    mkdir -p "$ceph"/{mon,osd,mgr,run}
    _ceph_configure "$@"
    _ceph_keys
    monmaptool --create --addv a "$(sed -n 's/^mon host = //p' "$CEPH_CONF")" --fsid "$fsid" \
        "$ceph/monmap"
    ceph-mon --mkfs -i a --monmap "$ceph/monmap" --keyring "$ceph/keyring"
    ceph-mon -i a
    ceph-mgr -i x
    osd=$(cat /proc/sys/kernel/random/uuid)
    ceph osd new "$osd"
    ceph auth add osd.0 -i "$ceph/osd/keyring" mon 'allow profile osd' mgr 'allow profile osd' \
        osd 'allow *'
    ceph-osd -i 0 --mkfs --osd-uuid "$osd" --keyring "$ceph/osd/keyring"
    start_osd
    ceph osd pool create rbd 8
    rbd pool init rbd
}

start_ceph() {
    requires command -v ceph-osd ceph-mon ceph-mgr rbd ip
    use_ceph "$@"
    cleanup_fn _stop_ceph
    mkdir -p "$ceph"
    (set -e; _start_ceph "$@") >"$ceph/start.log" 2>&1 || { cat "$ceph/start.log"; fail "no Ceph cluster"; }
}

# rbd_write IMAGE SEED OFFSET+LENGTH ...: noise by librbd itself; or, with the seed trim, discards.
rbd_write() { /usr/bin/python3 "$abs_srcdir/tests/integration/rbd-write.py" "$@"; }
