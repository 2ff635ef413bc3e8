#!/usr/bin/env bash
# Postrider and Postfix in turn on the same loads: smtp-source -> relay -> smtp-sink on loopback.
#
# Prints for each run the rate end to end (first connection until the sink has everything), the relay's
# CPU time per message and its memory (PSS) at the last acceptance, then medians and ratios. Both relays
# store a message durably before they answer, both log, both hand over through at most 20 connections.
# Postfix runs as a private instance with the settings it is shipped with, except for what makes it faster
# here (end_to_end/relays.sh shows them).
#
#   SCENARIOS="4k-50 tls"        some of the loads below; all by default
#   MESSAGES=5000                of the first; the slower loads take a part of it
#   ROUNDS=2                     runs of each relay, taken in turn
#   ONLY=postrider|postfix       one of them alone
#   POSTRIDER=path/to/binary     this binary instead of a fresh release build
#   WORK=/some/folder            where spools are; its file system is what fsync costs
#   REPORT=docs/performance.md   writes the table there, with machine, date and settings
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin

all=${MESSAGES:-5000} rounds=${ROUNDS:-2} only=${ONLY:-} report=${REPORT:-}
# Postfix's default_destination_concurrency_limit, given to both.
handovers=20
# How long a run may take before it counts as failed.
patience=${PATIENCE:-600}

#  name        sessions size   recipients tls fsync sink messages
loads="
4k-50          50       4096   1          no  0     smtp 1
4k-1           1        4096   1          no  0     smtp 5
100k-20        20       102400 1          no  0     smtp 5
20-recipients  20       4096   20         no  0     smtp 5
tls            50       4096   1          yes 0     smtp 1
slow-fsync     50       4096   1          no  3000  smtp 2
ses            50       4096   1          no  0     ses  2
"
chosen=${SCENARIOS:-$(awk 'NF { print $1 }' <<<"$loads")}

# shellcheck source=end_to_end/measure.sh
. benches/end_to_end/measure.sh
# shellcheck source=end_to_end/relays.sh
. benches/end_to_end/relays.sh

[ "$only" = postrider ] || [ "$(id -u)" = 0 ] || fail "Postfix's daemons start as root; run as root, or with ONLY=postrider"
for tool in smtp-source smtp-sink haproxy openssl; do
    command -v "$tool" >/dev/null || fail "$tool is missing; run tests/install.sh peers"
done

work=$(mktemp -d -p "${WORK:-${TMPDIR:-/tmp}}" postrider-bench.XXXXXX)
# Postfix's daemons leave root behind and still have to get in.
chmod 755 "$work"
relay=0 sink=0 proxy=0 postfix_running=
clean_up() {
    [ -z "$postfix_running" ] || postfix -c "$work/postfix/etc" abort >/dev/null 2>&1 || true
    for process in "$relay" "$sink" "$proxy"; do
        [ "$process" = 0 ] || kill "$process" 2>/dev/null || true
    done
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

postrider=${POSTRIDER:-} ses_sink=
target=${CARGO_TARGET_DIR:-target}
if [ "$only" != postfix ]; then
    if [ -z "$postrider" ]; then
        cargo build --release --bin postrider
        postrider=$target/release/postrider
    fi
    [ -x "$postrider" ] || fail "there is no program at $postrider"
fi
if [[ " ${chosen//$'\n'/ } " == *" ses "* ]]; then
    cargo build --release --example ses_sink
    ses_sink=$target/release/examples/ses_sink
fi
cc -shared -fPIC -O2 -o "$work/slow_fsync.so" benches/end_to_end/slow_fsync.c -ldl
chmod 755 "$work/slow_fsync.so"

disk=$(stat -f -c %T "$work")
settings="$all messages for the first load, at most $handovers handovers at once, $rounds runs of each relay in turn; $(nproc) processors ($(awk -F': ' '/^model name/ { print $2; exit }' /proc/cpuinfo)), shared with source and sink; spools on $disk; $(uname -sr), $(postconf -h mail_version 2>/dev/null | sed 's/^/Postfix /'), $(date -u +%F)"
printf '%s\n\n' "$settings"
[ "$disk" != tmpfs ] || printf 'This is memory: fsync costs nothing here. Set WORK to a folder on a disk.\n\n'

while read -r scenario sessions size recipients tls fsync_us sink_kind part; do
    [ -n "$scenario" ] && [[ " ${chosen//$'\n'/ } " == *" $scenario "* ]] || continue
    messages=$((all / part))
    [ "$tls" = yes ] || [ "$fsync_us" != 0 ] || [ "$sink_kind" = ses ] || run_direct
    for _ in $(seq "$rounds"); do
        [ "$only" = postfix ] || run_postrider
        [ "$only" = postrider ] || [ "$sink_kind" = ses ] || run_postfix
    done
done <<<"$loads"

printf '\n'
awk -f benches/end_to_end/report.awk "$work/results" | tee "$work/table.md"
if [ -n "$report" ]; then
    {
        printf '# Performance\n\nWritten by `REPORT=docs/performance.md make bench`; run it on your own machine.\n\n%s.\n\n' "$settings"
        printf 'Rates are end to end: from the first connection until the sink has everything, each message on stable storage\nbefore it is acknowledged. CPU is the relay'"'"'s alone, per message. Memory is PSS. Medians.\n\n'
        cat "$work/table.md"
    } >"$report"
fi
