# A second root on the same repository lists, serves and restores its points, and adds its own.
. "$abs_srcdir/tests/functions.sh"

dd if=/dev/urandom of=a.raw bs=1M count=20 status=none
truncate -s 100M a.raw
cowgate --root one init
cowgate --root one --quiet import ./a.raw volumes/acme/web
point=$(cowgate --root one --quiet backup volumes/acme/web)

cowgate --root two init --repository one/repo
[ "$(cowgate --root two --json list | jq -r '.[].name' | sort | tr '\n' ' ')" = "$point backups/acme/web/latest " ] ||
    fail "the second root lists $(cowgate --root two list)"
export COWGATE_ROOT=$tmp/two
cowgate --quiet verify
start_serve "$tmp/s"
nbdcopy "$(uri "$tmp/s" "$point")" copy.raw
same a.raw copy.raw
cowgate --quiet restore "$point" volumes/acme/web
cowgate --quiet export volumes/acme/web ./b.raw
same a.raw b.raw
cowgate clone "$point" volumes/acme/clone
cowgate --quiet export volumes/acme/clone ./c.raw
same a.raw c.raw

# Both back up the same volume's name; each point is what its own root had.
cowgate --json --quiet backup volumes/acme/web >second.json
[ "$(jq .chunks_stored second.json)" = 0 ] || fail "known data was stored again: $(cat second.json)"
cowgate --root one --quiet backup volumes/acme/web >/dev/null
cowgate --quiet export backups/acme/web/latest ./d.raw
same a.raw d.raw
cowgate --quiet verify

# The repository alone is enough: the first root is gone.
mv one/repo repo && rm -rf one
cowgate --root three init --repository "$tmp/repo"
cowgate --root three --quiet export "$point" ./e.raw
same a.raw e.raw
