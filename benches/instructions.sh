#!/usr/bin/env bash
# How many instructions one message costs on its way through the whole program, held to a budget.
#
# The program as it is released runs under valgrind's callgrind: SMTP on loopback, the spool, all guards, a
# smart host (smtp-sink). It does so twice, and the difference is divided by that of the messages, so that
# starting and stopping do not count. Nor does what the kernel does. Other work on the machine hardly matters, nor
# does the model of its CPU: valgrind shows programs one of its own.
#
# One session hands in one message after the other. That is what makes the count steady: with several it depends on
# the moment which messages share a commit, and which of them wait for the smart host and are read back.
#
#   benches/instructions.sh            counts, compares, fails when the budget is exceeded by more than 5 %
#   benches/instructions.sh --record   counts, and writes that as the budget
#
#   PROFILE=some/file                  writes there which functions they are
#   SESSIONS=50                        so many at once instead; never compared
#   MESSAGES="200 1000"                of the two runs
#   POSTRIDER=path/to/binary           this binary instead of a fresh release build
#   WORK=/some/folder                  where spools are; in memory by default, if there is room
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin

# shellcheck source=end_to_end/measure.sh
. benches/end_to_end/measure.sh

record=
case "${1:-}" in
"") ;;
--record) record=yes ;;
*) fail "usage: benches/instructions.sh [--record]" ;;
esac
read -r few many <<<"${MESSAGES:-200 1000}"
budgets=benches/instructions.budget
tolerance=5
# The load, for measure.sh.
sessions=${SESSIONS:-1} size=4096 recipients=1 sink_kind=smtp patience=600

for tool in valgrind smtp-source smtp-sink python3; do
    command -v "$tool" >/dev/null || fail "$tool is missing; run tests/install.sh peers"
done
# Libraries choose between variants by this one feature of those that valgrind knows.
machine=$(uname -m)
if [ "$machine" = x86_64 ] && ! grep -qw avx2 /proc/cpuinfo; then machine=x86_64-without-avx2; fi

# The kernel is not counted, and in memory it says sooner that something is on disk, which is steadier.
where=${WORK:-}
if [ -z "$where" ] && [ -w /dev/shm ] && [ "$(df -k --output=avail /dev/shm | tail -n 1)" -gt 262144 ]; then where=/dev/shm; fi
work=$(mktemp -d -p "${where:-${TMPDIR:-/tmp}}" postrider-instructions.XXXXXX)
chmod 755 "$work"
relay=0 sink=0
clean_up() {
    for process in "$relay" "$sink"; do
        [ "$process" = 0 ] || kill "$process" 2>/dev/null || true
    done
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

postrider=${POSTRIDER:-}
if [ -z "$postrider" ]; then
    # Mail to a smart host passes nothing of Amazon's library, which takes as long to compile as the rest.
    cargo build --release --no-default-features --bin postrider
    postrider=${CARGO_TARGET_DIR:-target}/release/postrider
fi
[ -x "$postrider" ] || fail "there is no program at $postrider"

# Takes $1 messages through, and leaves the count in $work/$1.callgrind.
pass() {
    messages=$1
    local port counted=$work/$1.callgrind
    start_sink
    port=$(free_port)
    mkdir "$work/spool"
    cat >"$work/postrider.toml" <<CONFIG
[server]
hostname = "postrider.bench.example"
data_dir = "$work/spool"
[[listener]]
bind = "127.0.0.1:$port"
[provider.smarthost.sink]
host = "127.0.0.1"
port = $sink_port
tls = "off"
[provider.smarthost.sink.limits]
concurrency = 20
CONFIG
    valgrind --tool=callgrind --callgrind-out-file="$counted" "$postrider" serve --config "$work/postrider.toml" >"$work/postrider.log" 2>&1 &
    relay=$!
    listening "$port" postrider
    submit_to "$port" || fail "smtp-source failed" "$(tail -n 20 "$work/postrider.log")"
    sink_done postrider
    kill "$relay"
    wait "$relay" || fail "postrider did not stop cleanly" "$(tail -n 20 "$work/postrider.log")"
    relay=0
    rm -rf "$work/spool"
}

total() { awk '/^totals:/ { print $2 }' "$work/$1.callgrind"; }

# Functions by what they cost a message; callgrind_annotate's options say whether with what they call.
functions() {
    for messages in "$few" "$many"; do
        callgrind_annotate --threshold=100 "$@" "$work/$messages.callgrind" |
            sed -nE "s/^ *([0-9,]+) \( *[0-9.]+%\)  (.*)/$messages \1 \2/p"
    done | awk -v few="$few" -v many="$many" '
        / PROGRAM TOTALS$/ { next }
        {
            messages = $1; count = $2; gsub(",", "", count)
            sub(/^[^ ]+ [^ ]+ /, "")
            # Without the file, which is mostly unknown, and the library.
            sub(/^[^:]*:/, ""); sub(/ \[[^]]*\]$/, "")
            costs[$0] += messages == few ? -count : count
        }
        END { for (name in costs) if (costs[name] > 0) printf "%10.0f  %s\n", costs[name] / (many - few), name }' |
        sort -rn | awk 'NR <= 40'
}

printf 'Counting the instructions of %s and of %s messages under %s …\n' "$few" "$many" "$(valgrind --version)"
pass "$few"
pass "$many"
count=$((($(total "$many") - $(total "$few")) / (many - few)))
if [ -n "${PROFILE:-}" ]; then
    {
        printf 'Instructions a message: %s\n\nOf functions themselves:\n' "$count"
        functions
        printf '\nOf functions with what they call:\n'
        functions --inclusive=yes
    } >"$PROFILE"
    printf 'Which functions they are stands in %s.\n' "$PROFILE"
fi

if [ "$sessions" != 1 ]; then
    printf 'One message of %s sessions costs %s instructions. The budget is for one session.\n' "$sessions" "$count"
    exit
fi
if [ -n "$record" ]; then
    {
        awk -v machine="$machine" '$1 != machine' "$budgets"
        printf '%s %s  # %s, %s\n' "$machine" "$count" "$(date -u +%F)" "$(rustc --version | cut -d' ' -f1,2)"
    } >"$work/budget"
    cp "$work/budget" "$budgets"
    printf 'One message costs %s instructions, which is the budget of %s from now on. Commit %s, and say why it changed.\n' \
        "$count" "$machine" "$budgets"
    exit
fi

budget=$(awk -v machine="$machine" '$1 == machine { print $2 }' "$budgets")
if [ -z "$budget" ]; then
    printf '!!! INSTRUCTIONS NOT COMPARED: one message costs %s, and %s has no budget for %s.\n' "$count" "$budgets" "$machine"
    exit
fi
part=$(awk -v count="$count" -v budget="$budget" 'BEGIN { printf "%+.1f %%", (count / budget - 1) * 100 }')
printf 'One message costs %s instructions; the budget is %s (%s).\n' "$count" "$budget" "$part"
if [ $((count * 100)) -gt $((budget * (100 + tolerance))) ]; then
    fail "that is more than $tolerance % over the budget" \
        "where they go: PROFILE=/tmp/functions make instructions, here and on the commit before" \
        "if it is worth it: benches/instructions.sh --record, and say in the commit what is bought with it"
elif [ $((count * 100)) -lt $((budget * (100 - tolerance))) ]; then
    printf 'That is so much less that it should be kept: benches/instructions.sh --record\n'
fi
