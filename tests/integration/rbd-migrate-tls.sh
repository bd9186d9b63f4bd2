#!/bin/bash
# A migration read over TCP with TLS: librbd's NBD stream takes nbds:// and finds the certificates
# where libnbd looks for them; whoever trusts another authority reads nothing, nor does, if the server
# asks for one, who has no certificate.
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
certificate() { # NAME DIR: of the server's authority, in DIR
    mkdir -p "$2"
    certtool --generate-privkey --outfile "$2/$1-key.pem" 2>/dev/null
    printf 'cn = gateway\nip_address = 127.0.0.1\ntls_www_%s\nencryption_key\nsigning_key\n' "$1" >"$1.info"
    certtool --generate-certificate --load-ca-certificate server/ca-cert.pem \
        --load-ca-privkey server/ca-key.pem --load-privkey "$2/$1-key.pem" \
        --template "$1.info" --outfile "$2/$1-cert.pem" 2>/dev/null
}
certificate server server
certificate client known
mkdir unknown
cp server/ca-cert.pem known
cp server/ca-cert.pem unknown

if [ $stream = file ]; then
    must_fail 1 'reads streams from files only' cowgate migrate run ./source.raw rbd/rbd/moved --serve \
        --listen 127.0.0.1:10809 --tls-certificates "$tmp/server" --tls-verify-peer
    nothing_left
    exit 0
fi

# The default place, for root, in an /etc of our own.
cp -a /etc etc
mount --bind etc /etc
mkdir -p /etc/pki/libnbd
trust() { cp "$1/ca-cert.pem" /etc/pki/libnbd/; }
trust server
serve_it=(--listen 127.0.0.1:10809 --tls-certificates "$tmp/server" --tls-verify-peer)
must_fail 1 "doesn't answer at nbds://127.0.0.1:10809" cowgate migrate run ./source.raw rbd/rbd/moved --serve "${serve_it[@]}"
nothing_left
own() { cp "$tmp"/known/client-*.pem /etc/pki/libnbd/; }
own
start_moving ./source.raw source.raw "${serve_it[@]}"
use_it
jq -e '.[0].address == "nbds://127.0.0.1:10809"' <<<"$(cowgate --json migrate status)"
at=nbds://127.0.0.1:10809/$(cowgate --json migrate status | jq -r '.[0].images[-1]')
nbdcopy "$at?tls-certificates=$tmp/known" - | cmp - source.raw
! nbdinfo --size "$at?tls-certificates=$tmp/unknown" 2>unknown.log || fail "a client without a certificate is served"
cat unknown.log
trust other
must_fail 5 'certificate' rbd export --no-progress moved none.raw
trust server
rm /etc/pki/libnbd/client-*.pem
must_fail 5 . rbd export --no-progress moved none.raw
[ ! -e none.raw ] || fail "it was read"
own
fill_it_in_use
end_moving
