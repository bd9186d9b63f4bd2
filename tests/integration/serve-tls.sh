# TCP and TLS: what listens, who gets in with which key, and that nothing that others can reach is
# served in the clear by accident.
. "$abs_srcdir/tests/functions.sh"
requires certtool --version
requires psktool --version

cowgate init
head -c 3M /dev/urandom >disk.raw
cowgate --quiet import ./disk.raw volumes/acme/web
base=$((10000 + $$ % 20000))

# serve PORT ARGS ...: on that port, ready when this returns.
serve() {
    port=$1
    shift
    cowgate serve "$@" 2>"$port.log" &
    serve_pid=$!
    cleanup_fn stop "$serve_pid"
    wait_for 30 grep -q "^serving on" "$port.log"
}

# In the clear only on loopback, by its names and numbers.
serve $base --listen 127.0.0.1:$base
grep -qx "serving on nbd://127.0.0.1:$base/" $base.log || fail "$(cat $base.log)"
nbdcopy "nbd://127.0.0.1:$base/volumes/acme/web" copy.raw
same copy.raw disk.raw
must_fail 1 'Address already in use' cowgate serve --listen 127.0.0.1:$base
stop "$serve_pid"
if getent hosts localhost >/dev/null; then # a system without /etc/hosts doesn't know it
    serve $((base + 1)) --listen "localhost:$((base + 1))" volumes/acme/web
    [ "$(nbdinfo --size "nbd://localhost:$port")" = 3145728 ] || fail "localhost"
    stop "$serve_pid"
fi
if [ -e /proc/net/if_inet6 ] && grep -q ' lo$' /proc/net/if_inet6; then
    serve $((base + 2)) --listen "[::1]:$((base + 2))"
    nbdcopy "nbd://[::1]:$port/volumes/acme/web" - | cmp - disk.raw
    stop "$serve_pid"
fi
for address in 0.0.0.0 192.0.2.1 '[::]' example.org; do
    must_fail 2 'can be reached from outside' cowgate serve --listen "$address:$base"
done
for address in 127.0.0.1 :1 127.0.0.1:0 127.0.0.1:65536 127.0.0.1:1x ::1:10809 '[::1]' ''; do
    must_fail 2 'write ADDR:PORT|is empty' cowgate serve --listen "$address"
done
serve $((base + 3)) --listen "0.0.0.0:$((base + 3))" --insecure
nbdcopy "nbd://127.0.0.1:$port/volumes/acme/web" - | cmp - disk.raw
stop "$serve_pid"

# A key for each user.
psktool -u alice -p keys >/dev/null
psktool -u mallory -p wrong >/dev/null
serve $((base + 4)) --listen "0.0.0.0:$((base + 4))" --tls-psk keys
grep -qx "serving on nbds://0.0.0.0:$port/" $port.log || fail "$(cat $port.log)"
nbdcopy "nbds://alice@127.0.0.1:$port/volumes/acme/web?tls-psk-file=$tmp/keys" - | cmp - disk.raw
must_fail 1 'TLS|tls' nbdinfo "nbd://127.0.0.1:$port/volumes/acme/web"
must_fail 1 'gnutls|TLS|tls' nbdinfo "nbds://mallory@127.0.0.1:$port/volumes/acme/web?tls-psk-file=$tmp/wrong"
# Told to end, it does, with clients connected that are idle or that read.
cat >idle.py <<'PY'
import nbd, sys
h = nbd.NBD()
h.set_uri_allow_local_file(True)
h.connect_uri(sys.argv[1])
h.pwrite(b"t" * 4096, 0)
open("connected", "w").close()
try:
    while sys.argv[2] == "read":
        h.pread(65536, 0)
    while True:
        h.poll(-1)
except nbd.Error as e:
    print(e)
PY
for what in idle read; do
    rm -f connected
    /usr/bin/python3 idle.py "nbds://alice@127.0.0.1:$port/volumes/acme/web?tls-psk-file=$tmp/keys" $what >$what.out &
    cleanup_fn stop $!
    wait_for 20 test -e connected
done
kill "$serve_pid"
timeout 30 tail --pid="$serve_pid" -f /dev/null || fail "the server does not end"
wait "$serve_pid" || fail "the server ended with $?"
[ -z "$(ls "$COWGATE_RUN" | grep '^map-')" ] || fail "the volume wasn't closed"

# Also on the unix socket.
start_psk() {
    cowgate serve --socket "$tmp/tls" --tls-psk keys 2>tls.log &
    serve_pid=$!
    cleanup_fn stop "$serve_pid"
    wait_for 30 grep -qF "serving on nbds+unix:///?socket=$tmp/tls" tls.log
}
start_psk
[ "$(nbdinfo --size "nbds+unix://alice@/volumes/acme/web?socket=$tmp/tls&tls-psk-file=$tmp/keys")" = 3145728 ]
must_fail 1 'TLS|tls' nbdinfo "$(uri "$tmp/tls" volumes/acme/web)"
stop "$serve_pid"

# Certificates.
mkdir server client
certtool --generate-privkey --outfile ca-key.pem 2>/dev/null
printf 'cn = cowgate test\nca\ncert_signing_key\n' >ca.info
certtool --generate-self-signed --load-privkey ca-key.pem --template ca.info --outfile server/ca-cert.pem 2>/dev/null
certtool --generate-privkey --outfile server/server-key.pem 2>/dev/null
printf 'cn = localhost\ndns_name = localhost\nip_address = 127.0.0.1\ntls_www_server\nencryption_key\nsigning_key\n' >server.info
certtool --generate-certificate --load-ca-certificate server/ca-cert.pem --load-ca-privkey ca-key.pem \
    --load-privkey server/server-key.pem --template server.info --outfile server/server-cert.pem 2>/dev/null
cp server/ca-cert.pem client/
serve $((base + 5)) --listen "0.0.0.0:$((base + 5))" --tls-certificates server volumes/acme/web
nbdcopy "nbds://127.0.0.1:$port/?tls-certificates=$tmp/client" copy.raw
cmp -i 4096 copy.raw disk.raw || fail "what came over TLS differs"
must_fail 1 'TLS|tls' nbdinfo "nbd://127.0.0.1:$port"
# Of somebody else's authority, the client wants nothing.
mkdir other
certtool --generate-self-signed --load-privkey ca-key.pem --template ca.info --outfile other/ca-cert.pem 2>/dev/null
certtool --generate-privkey --outfile other-key.pem 2>/dev/null
certtool --generate-self-signed --load-privkey other-key.pem --template ca.info --outfile other/ca-cert.pem 2>/dev/null
must_fail 1 'certificate|tls|TLS' nbdinfo "nbds://127.0.0.1:$port/?tls-certificates=$tmp/other"
stop "$serve_pid"

# Only who has one, too.
certtool --generate-privkey --outfile client/client-key.pem 2>/dev/null
printf 'cn = somebody\ntls_www_client\nencryption_key\nsigning_key\n' >client.info
certtool --generate-certificate --load-ca-certificate server/ca-cert.pem --load-ca-privkey ca-key.pem \
    --load-privkey client/client-key.pem --template client.info --outfile client/client-cert.pem 2>/dev/null
mkdir none others
cp server/ca-cert.pem none/
cp server/ca-cert.pem client/client-key.pem others/
certtool --generate-certificate --load-ca-certificate other/ca-cert.pem --load-ca-privkey other-key.pem \
    --load-privkey client/client-key.pem --template client.info --outfile others/client-cert.pem 2>/dev/null
serve $((base + 6)) --listen "0.0.0.0:$((base + 6))" --tls-certificates server --tls-verify-peer volumes/acme/web
nbdcopy "nbds://127.0.0.1:$port/?tls-certificates=$tmp/client" - | cmp -i 4096 - disk.raw
for who in none others; do
    must_fail 1 'certificate|tls|TLS' nbdinfo --size "nbds://127.0.0.1:$port/?tls-certificates=$tmp/$who"
done
stop "$serve_pid"

must_fail 2 'is for --tls-certificates' cowgate serve --tls-psk keys --tls-verify-peer
must_fail 2 'exclude each other' cowgate serve --tls-psk keys --tls-certificates server
