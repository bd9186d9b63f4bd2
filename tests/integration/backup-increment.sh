# Two backups of a 10 GiB volume with 40 MiB changed between them by a real client: the second reads
# and stores no more than that, shares with other volumes of the project and with no other project,
# and the first one restored over the volume's new state moves only what differs.
. "$abs_srcdir/tests/functions.sh"
requires qemu-io --version
requires qemu-img --version
requires jq --version

number() { jq -r ".$2" <"$1"; }
ids() { find "root/repo/$1/chunks" "root/repo/$1/pages" -type f -printf '%f\n' | sort; }

cowgate init
cowgate create volumes/acme/web --size 10G
start_serve "$tmp/s"
web=$(uri "$tmp/s" volumes/acme/web)
head -c 64M /dev/urandom >noise
qemu-io -f raw -c "write -s noise 1G 64M" -c "write -s noise 5G 64M" -c flush "$web" >/dev/null
cowgate --json backup volumes/acme/web >first
[ "$(number first incremental)" = false ]
# The second 64 MiB are the same as the first.
[ "$(find root/repo/acme/chunks -type f | wc -l)" = 16 ]
cowgate export volumes/acme/web ./was.raw

head -c 40M /dev/urandom >change
qemu-io -f raw -c "write -s change 1050M 40M" -c flush "$web" >/dev/null
cowgate --json backup volumes/acme/web >second
[ "$(number second incremental)" = true ]
[ "$(number second chunks_read)" -le 13 ]
[ "$(number second chunks_stored)" -le 13 ]
[ "$(number second bytes_read)" -le $((13 * 4 << 20)) ]
cowgate export volumes/acme/web ./is.raw
cowgate export "$(number second point)" ./point.raw
qemu-img compare -q -f raw -F raw point.raw is.raw # knows holes

# Another volume of the project, and another project.
cowgate clone volumes/acme/web volumes/acme/copy
cowgate --json backup volumes/acme/copy >third
[ "$(number third chunks_stored)" = 0 ]
[ "$(number third bytes_stored)" -lt 65536 ]
cowgate --json backup volumes/acme/web backups/other/web >fourth
[ "$(number fourth chunks_stored)" -ge 26 ]
[ -z "$(comm -12 <(ids acme) <(ids other))" ] || fail "two projects have an id in common"

qemu-io -f raw -c "write -P 9 3G 1M" -c "write -P 9 1060M 64K" -c flush "$web" >/dev/null
stop "$serve_pid"
# Trusting what the volume says has changed since its last backup, only that is read.
cowgate --json restore --trust-diff "$(number second point)" volumes/acme/web >restored
jq -e '.distrust == "" and .bytes_read == 8388608 and .chunks_fetched == 1' restored
cowgate export --force volumes/acme/web ./again.raw
qemu-img compare -q -f raw -F raw again.raw is.raw
cowgate --json restore "$(number first point)" volumes/acme/web >restored
[ "$(number restored chunks_fetched)" -le 13 ]
[ "$(number restored bytes_written)" -le $((13 * 4 << 20)) ]
cowgate export --force volumes/acme/web ./again.raw
qemu-img compare -q -f raw -F raw again.raw was.raw
cowgate verify

# An odd size is known of the point too.
head -c 100001 noise >odd
cowgate import ./odd volumes/acme/odd
point=$(cowgate --quiet backup volumes/acme/odd)
[ "$(cowgate --json info "$point" | jq .original_size)" = 100001 ]
[ "$(cowgate --json info "$point" | jq .size)" = 100352 ]
