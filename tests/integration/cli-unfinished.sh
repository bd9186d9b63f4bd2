# What is unfinished has a name of its own: nobody else's bytes get under the final name, nothing
# that isn't ours is written, nothing that appears meanwhile is replaced.
. "$abs_srcdir/tests/functions.sh"
requires strace -V

cowgate init
head -c 8M /dev/zero | tr '\0' A >a.raw
head -c 8M /dev/zero | tr '\0' B >b.raw
head -c 1M /dev/zero | tr '\0' C >c.raw
for v in a b c; do cowgate --quiet import ./$v.raw volumes/acme/$v; done
point_a=$(cowgate --quiet backup volumes/acme/a)
point_b=$(cowgate --quiet backup volumes/acme/b)

# held SYSCALL NUMBER COMMAND ...: in the background, held up for 3 s (or $held_for µs) in its NUMBERth
# call of SYSCALL; returns when it is.
held() {
    local call=$1 number=$2
    shift 2
    rm -f trace
    strace -f -o trace -e trace="$call" \
        -e inject="$call":delay_enter=${held_for:-3000000}:when="$number" "$@" 2>held.err &
    holder=$!
    wait_for 30 reached "$call" "${number%%:*}"
}
reached() { [ "$(grep -c "$1(" trace)" -ge "$2" ]; }

# A second command meets the first's unfinished file: it's refused, and the first one's is whole.
held fdatasync 1 cowgate --quiet export volumes/acme/a ./out.raw
must_fail 1 'being written by somebody else' cowgate --quiet export volumes/acme/c ./out.raw
must_fail 1 'being written by somebody else' cowgate --quiet restore "$point_b" ./out.raw
wait "$holder" || fail "$(cat held.err)"
same out.raw a.raw
rm out.raw

# ... also in the last moment.
held renameat2 1 cowgate --quiet restore "$point_a" ./out.raw
must_fail 1 'being written by somebody else' cowgate --quiet restore "$point_b" ./out.raw
wait "$holder" || fail "$(cat held.err)"
same out.raw a.raw

# The same with volumes.
for command in "restore $point_a" "import ./a.raw"; do
    held renameat2 2 cowgate --quiet $command volumes/acme/out
    must_fail 1 'being (written|filled)|in use|open|already' cowgate --quiet restore "$point_b" volumes/acme/out
    must_fail 1 'being (written|filled)|in use|open|already' cowgate --quiet import ./c.raw volumes/acme/out
    wait "$holder" || fail "$(cat held.err)"
    cowgate --quiet export volumes/acme/out ./vol.raw
    same vol.raw a.raw
    rm vol.raw
    cowgate delete volumes/acme/out
done

# A volume that is being filled is listed as that, opens for nobody and can't be deleted; when who
# filled it is dead it can.
out() { cowgate --json list volumes | jq -r '.[] | select(.name == "volumes/acme/out") | "\(.unfinished) \(.size) \(.description)"'; }
[ "$(cowgate --json list | jq '[.[] | select(.unfinished)] | length')" = 0 ] || fail "$(cowgate list)"
for command in "restore $point_a" "import ./a.raw"; do
    held_for=60000000 held fdatasync 1 cowgate --quiet $command volumes/acme/out
    [[ $(out) =~ ^true\ 8388608\ unfinished:\ process\ ([0-9]+)\ is\ filling\ it$ ]] || fail "$(out)"
    pid=${BASH_REMATCH[1]}
    must_fail 1 "being written by process $pid" cowgate delete volumes/acme/out
    must_fail 1 'unfinished import or restore has of volumes/acme/out' cowgate info volumes/acme/out
    kill -9 "$pid"
    wait "$holder" && fail "it wasn't killed"
    [ "$(out)" = 'true 8388608 unfinished: run its import or restore again, or delete it' ] || fail "$(out)"
    cowgate list volumes/acme/out | grep -q '^volumes/acme/out  *8.00 MiB .*  unfinished: run' || fail "$(cowgate list)"
    start_serve "$tmp/s"
    nbdinfo --list "$(uri "$tmp/s")" | grep -q acme/out && fail "a draft is an export"
    stop "$serve_pid"
    cowgate create volumes/acme/out --size 1M # a volume goes before a draft of its name
    cowgate delete volumes/acme/out
    [ "$(out)" = 'true 8388608 unfinished: run its import or restore again, or delete it' ] || fail "$(out)"
    cowgate delete volumes/acme/out
    [ -z "$(out)" ] && [ ! -e root/pool/acme/.draft-out ] || fail "the draft is there"
    must_fail 1 'there is no such volume|there is no volume volumes/acme/out$' cowgate delete volumes/acme/out
done

# What another makes in its place between making and opening it isn't filled if it has another size.
strace -f -o killed -e trace=fdatasync -e inject=fdatasync:signal=SIGKILL:when=1 \
    cowgate --quiet import ./a.raw volumes/acme/out && fail "it wasn't killed"
mv root/pool/acme/.draft-out other
strace -f -o made -e trace=renameat2 -e inject=renameat2:signal=SIGSTOP:when=1 \
    cowgate --quiet import ./c.raw volumes/acme/out 2>made.err &
holder=$!
wait_for 30 grep -q 'stopped by SIGSTOP' made
rm -r root/pool/acme/.draft-out
mv other root/pool/acme/.draft-out
kill -CONT "$(cut -d' ' -f1 made | head -n 1)"
wait "$holder" && fail "it filled another's"
grep -q 'being made by another process' made.err || fail "$(cat made.err)"
cowgate delete volumes/acme/out

# One that can't even be opened leaves nothing.
long=$COWGATE_RUN/$(printf 'x%.0s' {1..50})
for command in "restore $point_a" "import ./a.raw"; do
    must_fail 1 'socket in .*: File name too long' env COWGATE_RUN="$long" cowgate --quiet $command volumes/acme/out
    [ ! -e root/pool/acme/.draft-out ] || fail "a draft was left"
done

# A file that appears meanwhile stays.
held renameat2 1 cowgate --quiet restore "$point_a" ./other.raw
echo mine >other.raw
wait "$holder" && fail "a file that appeared was replaced"
grep -q 'File exists' held.err || fail "$(cat held.err)"
[ "$(cat other.raw)" = mine ] || fail "a file that appeared was changed"

# File systems that can't rename exclusively: a hard link is as good, and without those a look.
without() {
    strace -f -o trace -e trace=renameat2,link,rename \
        -e inject=renameat2:error=EINVAL "$@"
}
for injected in '' '-e inject=link:error=EPERM'; do
    for command in "export volumes/acme/a" "restore $point_a"; do
        without $injected cowgate --quiet $command ./plain.raw
        grep -q 'renameat2(.*INJECTED' trace || fail "$(cat trace)"
        same plain.raw a.raw
        [ "$(stat -c %h plain.raw)" = 1 ] && [ ! -e plain.raw.cowgate-partial ] || fail "$(ls -l)"
        rm plain.raw
    done
    held_for=2000000
    held renameat2 1:error=EINVAL $injected cowgate --quiet restore "$point_a" ./taken.raw
    echo mine >taken.raw
    wait "$holder" && fail "a file that appeared was replaced"
    grep -q 'File exists' held.err || fail "$(cat held.err)"
    [ "$(cat taken.raw)" = mine ] || fail "a file that appeared was changed"
    rm taken.raw*
done

# The same for the directories of volumes, whose names are given with the lock of the pool held.
without cowgate create volumes/acme/plain --size 8M
grep -q 'renameat2(.*INJECTED' trace || fail "$(cat trace)"
must_fail 1 'there is a volume volumes/acme/plain already' without cowgate create volumes/acme/plain --size 4M
must_fail 1 'there is a volume volumes/acme/a already' without cowgate rename volumes/acme/plain volumes/acme/a
cowgate --quiet export volumes/acme/a ./still.raw
same still.raw a.raw
without cowgate --quiet import ./a.raw volumes/acme/imported
without cowgate rename volumes/acme/imported volumes/other/renamed
without cowgate clone volumes/other/renamed volumes/acme/cloned
cowgate --quiet export volumes/acme/cloned ./still.raw --force
same still.raw a.raw
for v in acme/plain other/renamed acme/cloned; do without cowgate delete volumes/$v; done
[ ! -e root/pool/other ] && [ -z "$(find root/pool -name '.trash-*' -o -name '.new-*' -o -name '.draft-*')" ] ||
    fail "$(find root/pool)"
held renameat2 1:error=EINVAL cowgate create volumes/acme/plain --size 8M
must_fail 1 'there is a volume volumes/acme/plain already' cowgate create volumes/acme/plain --size 4M
wait "$holder" || fail "$(cat held.err)"
[ "$(cowgate --json info volumes/acme/plain | jq .size)" = 8388608 ] || fail "it was replaced"
cowgate delete volumes/acme/plain
unset held_for

# What has the unfinished file's name and isn't ours is left alone.
echo mine >somebodys
ln -s somebodys linked.cowgate-partial
must_fail 1 'linked.cowgate-partial' cowgate --quiet export volumes/acme/a ./linked
[ "$(cat somebodys)" = mine ] || fail "a link was followed"
[ -L linked.cowgate-partial ] && [ ! -e linked ] || fail "the link was touched"
ln somebodys hard.cowgate-partial
must_fail 1 "isn't an unfinished file of ours" cowgate --quiet export volumes/acme/a ./hard
[ "$(cat somebodys)" = mine ] || fail "a hard link was written"

# A symbolic link is never written through: one to nothing is refused at once, --force replaces it.
ln -s nothing dangling
for command in "export volumes/acme/a" "restore $point_a"; do
    must_fail 1 'dangling is a symbolic link to nothing' strace -f -o trace -e trace=pwrite64 \
        cowgate --quiet $command ./dangling
    grep -q pwrite64 trace && fail "it was copied first"
    [ -L dangling ] && [ ! -e nothing ] && [ ! -e dangling.cowgate-partial ] || fail "$(ls -l)"
done
ln -s somebodys link
for link in dangling link; do
    cowgate --quiet export volumes/acme/a ./$link --force
    [ ! -L $link ] || fail "$link was followed"
    same $link a.raw
done
[ ! -e nothing ] && [ "$(cat somebodys)" = mine ] || fail "a link was followed"

# What an interrupted run left of something else is never taken for content.
cp b.raw again.raw.cowgate-partial
cowgate --quiet export volumes/acme/a ./again.raw
same again.raw a.raw
cp b.raw restored.raw.cowgate-partial
cowgate --quiet restore "$point_a" ./restored.raw
same restored.raw a.raw

# No room for the file's size: nothing stays.
must_fail 1 'File too large' bash -c "ulimit -f 10; trap '' XFSZ; exec cowgate --quiet export volumes/acme/a ./big"
[ ! -e big ] && [ ! -e big.cowgate-partial ] || fail "an empty file was left"
