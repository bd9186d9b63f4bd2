#!/bin/bash
# A migration read over TCP with TLS: librbd's NBD stream takes nbds:// and finds the certificates
# where libnbd looks for them; whoever trusts another authority reads nothing.
. "$abs_srcdir/tests/functions.sh"
. "$abs_srcdir/tests/integration/ceph-functions.sh"
. "$abs_srcdir/tests/integration/rbd-migrate-functions.sh"
requires certtool --version
start_ceph
begin_root
remember_root
head -c 40M /dev/urandom >source.raw

authority() { # DIR: of its own
    mkdir -p "$1"
    certtool --generate-privkey --outfile "$1/ca-key.pem" 2>/dev/null
    printf 'cn = %s\nca\ncert_signing_key\n' "$1" >"$1/ca.info"
    certtool --generate-self-signed --load-privkey "$1/ca-key.pem" --template "$1/ca.info" \
        --outfile "$1/ca-cert.pem" 2>/dev/null
}
authority server
authority other
certtool --generate-privkey --outfile server/server-key.pem 2>/dev/null
printf 'cn = gateway\nip_address = 127.0.0.1\ntls_www_server\nencryption_key\nsigning_key\n' >server.info
certtool --generate-certificate --load-ca-certificate server/ca-cert.pem \
    --load-ca-privkey server/ca-key.pem --load-privkey server/server-key.pem \
    --template server.info --outfile server/server-cert.pem 2>/dev/null

if [ $stream = file ]; then
    must_fail 1 'reads streams from files only' cowgate migrate run ./source.raw rbd/rbd/moved --serve \
        --listen 127.0.0.1:10809 --tls-certificates "$tmp/server"
    nothing_left
    exit 0
fi

# The default place, for root, in an /etc of our own.
cp -a /etc etc
mount --bind etc /etc
mkdir -p /etc/pki/libnbd
trust() { cp "$1/ca-cert.pem" /etc/pki/libnbd/; }
trust server
start_moving ./source.raw source.raw --listen 127.0.0.1:10809 --tls-certificates "$tmp/server"
use_it
jq -e '.[0].address == "nbds://127.0.0.1:10809"' <<<"$(cowgate --json migrate status)"
trust other
must_fail 5 'certificate' rbd export --no-progress moved none.raw
[ ! -e none.raw ] || fail "it was read"
trust server
fill_it_in_use
end_moving
