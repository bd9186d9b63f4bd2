#!/bin/bash
# From another Ceph cluster: through a gateway of its own, over NBD, and natively where librbd can; and
# natively within one cluster.
. "$abs_srcdir/tests/functions.sh"
. "$abs_srcdir/tests/integration/ceph-functions.sh"
. "$abs_srcdir/tests/integration/rbd-migrate-functions.sh"
start_ceph 2
for at in 0 21 70; do
    dd if=/dev/urandom of=source.raw bs=1M seek=$at count=3 conv=notrunc status=none
done
truncate -s 80M source.raw
rbd import --no-progress source.raw far
rbd snap create --no-progress far@s
start_ceph
begin_root
remember_root

# Through the gateway: the other cluster has a root, and a server, there.
COWGATE_ROOT=$tmp/far begin_root
COWGATE_ROOT=$tmp/far CEPH_CONF=$tmp/ceph2/ceph.conf start_serve "$tmp/far.sock" --read-only \
    --only rbd/rbd/far@s
far_pid=$serve_pid
move "$(uri "$tmp/far.sock" rbd/rbd/far@s)" source.raw
stop "$far_pid"
[ "$(CEPH_CONF=$tmp/ceph2/ceph.conf rbd snap ls --all --format json far | jq length)" = 1 ] || fail "the source has changed"

# natively SOURCE OPTIONS ...: with Ceph's own tool, by the spec that is printed.
natively() {
    cowgate migrate spec --native "$@" >spec.json
    rbd migration prepare --import-only --source-spec-path spec.json new
    rbd export --no-progress new - | cmp - source.raw
    rbd migration execute --no-progress new
    rbd migration commit --no-progress new
    rbd export --no-progress new - | cmp - source.raw
    [ "$(used new)" -le "$(objects source.raw)" ] || fail "it isn't sparse"
    rbd snap purge --no-progress new
    rbd rm --no-progress new
}

# Within the cluster.
rbd rm --no-progress moved
rbd import --no-progress source.raw near
rbd snap create --no-progress near@s
natively rbd/rbd/near@s
jq -e '. == {"type": "native", "pool_name": "rbd", "image_name": "near", "snap_name": "s"}' spec.json

# Ceph itself takes what the image is at that moment, not the snapshot.
rbd_write near 6 0+4194304
rbd migration prepare --import-only --source-spec-path spec.json new
rbd export --no-progress new - | cmp - source.raw
rbd migration execute --no-progress new
rbd export --no-progress new new.raw
! cmp -s new.raw source.raw || echo "this librbd can import a snapshot: the check is in vain"
rbd migration abort --no-progress new
must_fail 1 'has been written since' cowgate migrate spec --native rbd/rbd/near@s
rbd snap protect near@s
rbd clone near@s clone
rbd snap create --no-progress clone@s
natively rbd/rbd/clone@s

rbd namespace create rbd/space
rbd import --no-progress source.raw rbd/space/deep
rbd snap create --no-progress rbd/space/deep@s
natively rbd/rbd/space/deep@s
must_fail 1 'only rbd/POOL/IMAGE@SNAPSHOT has a native spec' cowgate migrate spec --native rbd/rbd/near
must_fail 1 'there is no' cowgate migrate spec --native rbd/rbd/near@none
must_fail 2 'leave --advertise out' cowgate migrate spec --native rbd/rbd/near@s --advertise nbd://h:1
must_fail 2 'are for --native' cowgate migrate spec rbd/rbd/near@s --cluster far

# Another cluster, whose far.conf librbd finds, here in the working directory.
cowgate migrate spec --native rbd/rbd/far@s --cluster far --client client.admin >spec.json
jq -e '.cluster_name == "far" and .client_name == "client.admin"' spec.json
if [ $stream = nbd ]; then # an older librbd looks for the image in its own cluster
    cp "$tmp/ceph/ceph.conf" ceph.conf
    cp "$tmp/ceph2/ceph.conf" far.conf
    unset CEPH_CONF
    natively rbd/rbd/far@s --cluster far --client client.admin
fi
