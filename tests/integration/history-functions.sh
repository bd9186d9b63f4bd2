# Sourced, after tests/functions.sh, by tests of a volume's history.

# make_history SIZE FAR SIZE4 SIZE7: volumes/acme/web with twelve points, the fifth pruned; the other
# eleven are named in the file points, the last in $last.  Each differs from the one before by 3 MiB of
# data at another place and 1 MiB at FAR, and by zeros from 10 MiB on; before the fifth and the eighth
# the volume grows.
make_history() {
    local i
    cowgate create volumes/acme/web --size "$1"
    for i in {1..12}; do
        start_serve "$tmp/sock"
        qemu-io -f raw -c "write -P $i ${i}0M 3M" -c "write -P $((i + 100)) $2 1M" \
            -c "write -z 10M ${i}M" "$(uri "$tmp/sock" volumes/acme/web)" >>qemu-io.log
        stop "$serve_pid"
        case $i in
            4) cowgate resize volumes/acme/web "$3" ;;
            7) cowgate resize volumes/acme/web "$4" ;;
        esac
        cowgate backup volumes/acme/web | tail -n 1 >>points
    done
    pruned=$(sed -n 5p points)
    cowgate delete "$pruned"
    sed -i 5d points
    last=$(tail -n 1 points)
}
