# Sourced, as /guest.sh, by scripts that vm_run runs after vm_cowgate: what they share.
set -Eeuo pipefail
trap '{ echo "line $LINENO: $BASH_COMMAND"; cat /run/cowgate/attach/*.log 2>/dev/null; dmesg | tail -n 30; } >&2' ERR
say() { echo "== $(cut -d ' ' -f 1 /proc/uptime) $*"; }
fail() { echo "$*"; false; }
wait_for() { # SECONDS COMMAND ...
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do [ $SECONDS -lt $end ] || fail "'$*' didn't come true"; sleep 0.1; done
}
must_fail() { # TEXT COMMAND ...
    local text=$1 out
    shift
    if out=$("$@" 2>&1); then fail "'$*' didn't fail"; fi
    grep -q "$text" <<<"$out" || fail "'$*' didn't say '$text': $out"
}
server() { pgrep -f "cowgate-plugin.so.*export=$1" || true; }
watcher() { sed -n 's/.*"watcher": \([0-9]*\).*/\1/p' "/run/cowgate/attach/$(basename "$1").json"; }

# A root on the first disk, mounted on /mnt.
begin_root() {
    mkfs.ext4 -q /dev/vda
    mount /dev/vda /mnt
    export COWGATE_ROOT=/mnt/root
    cowgate init
}
