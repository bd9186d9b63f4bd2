vm_tests = \
	tests/integration/vm-attach.sh \
	tests/integration/vm-attach-other.sh \
	tests/integration/vm-drbd.sh \
	tests/integration/vm-lvm.sh \
	tests/integration/vm-migrate.sh \
	tests/integration/vm-nbd.sh
EXTRA_DIST += $(vm_tests)

# Each boots a virtual machine, see tests/vm-functions.sh.
if VM_TESTS
TESTS += $(vm_tests)
endif
