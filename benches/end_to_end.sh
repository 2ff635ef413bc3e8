#!/usr/bin/env bash
# Postrider and Postfix in turn on the same load: smtp-source -> relay -> smtp-sink on loopback.
#
# Prints for each run the rate end to end (first connection until the sink has everything) and the
# relay's CPU time per message, then medians and ratios. Both relays store a message durably before
# they answer, both log, both hand over through at most 20 connections. Postfix runs as a private
# instance with the settings it is shipped with, except for what makes it faster here (below).
#
#   MESSAGES=5000  SESSIONS=50  SIZE=4096   the load
#   ROUNDS=2                                runs of each relay, taken in turn
#   ONLY=postrider|postfix                  one of them alone
#   POSTRIDER=path/to/binary                this binary instead of a fresh release build
#   WORK=/some/folder                       where spools are; its file system is what fsync costs
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin

messages=${MESSAGES:-5000} sessions=${SESSIONS:-50} size=${SIZE:-4096} rounds=${ROUNDS:-2} only=${ONLY:-}
# Postfix's default_destination_concurrency_limit, given to both.
handovers=20
# How long a run may take before it counts as failed.
patience=${PATIENCE:-600}

fail() {
    printf 'bench: %s\n' "$@" >&2
    exit 1
}

[ "$only" = postrider ] || [ "$(id -u)" = 0 ] ||
    fail "Postfix's daemons start as root; run as root, or with ONLY=postrider"
for tool in smtp-source smtp-sink; do
    command -v "$tool" >/dev/null || fail "$tool is missing; run tests/install.sh peers"
done

work=$(mktemp -d -p "${WORK:-${TMPDIR:-/tmp}}" postrider-bench.XXXXXX)
# Postfix's daemons leave root behind and still have to get in.
chmod 755 "$work"
relay=0 sink=0 postfix_running=
clean_up() {
    [ -z "$postfix_running" ] || postfix -c "$work/postfix/etc" abort >/dev/null 2>&1 || true
    for process in "$relay" "$sink"; do
        [ "$process" = 0 ] || kill "$process" 2>/dev/null || true
    done
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# --- measuring -------------------------------------------------------------------------------------

now() { printf '%s' "${EPOCHREALTIME/[.,]/}"; }

# CPU time, in microseconds, of process $1 and everything below it, with what has ended and been
# waited for. The log writer is left out: elsewhere that is syslogd, which is not part of the relay.
cpu() {
    # Processes that end meanwhile are somebody else's.
    { cat /proc/[0-9]*/stat 2>/dev/null || true; } | awk -v root="$1" -v tick="$(getconf CLK_TCK)" '
        {
            pid = $1
            # The name may hold anything, so fields are counted from its closing bracket.
            name = $0; sub(/^[^(]*\(/, "", name); sub(/\)[^)]*$/, "", name)
            sub(/^.*\) /, ""); split($0, field, " ")
            parent[pid] = field[2]; title[pid] = name
            ticks[pid] = field[12] + field[13] + field[14] + field[15]
        }
        END {
            for (pid in ticks) {
                if (title[pid] == "postlogd") continue
                above = pid
                while (above != root && above in parent) above = parent[above]
                if (above == root) total += ticks[pid]
            }
            printf "%d", total * 1000000 / tick
        }'
}

# A loopback port that is free now.
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# Waits until something listens on port $1, called $2 in the complaint.
listening() {
    local deadline=$((SECONDS + 30))
    until (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; do
        [ $SECONDS -lt $deadline ] || fail "$2 does not listen on port $1 after 30 s" "$(tail -n 20 "$work"/*.log 2>/dev/null)"
        sleep 0.05
    done
}

start_sink() {
    sink_port=$(free_port)
    local user=()
    [ "$(id -u)" != 0 ] || user=(-u nobody)
    # It ends by itself with the last message, which is how the end is known. It does so without
    # answering that one; the relay may make of it what it likes, its run is over.
    smtp-sink "${user[@]}" -M "$messages" "127.0.0.1:$sink_port" 1024 >"$work/sink.log" 2>&1 &
    sink=$!
    listening "$sink_port" smtp-sink
}

submit_to() {
    smtp-source -d -s "$sessions" -m "$messages" -l "$size" -f from@bench.example -t to@sink.example "127.0.0.1:$1"
}

# Waits for the sink to have everything.
sink_done() {
    local deadline=$((SECONDS + patience))
    while kill -0 "$sink" 2>/dev/null; do
        [ $SECONDS -lt $deadline ] ||
            fail "$1: the sink still waits for messages after $patience s" "$(tail -n 20 "$work"/*.log 2>/dev/null)"
        sleep 0.01
    done
    wait "$sink" || fail "smtp-sink failed" "$(cat "$work/sink.log")"
    sink=0
}

# One measured run of relay $1, whose processes hang below $2 and which listens on port $3.
measure() {
    local name=$1 root=$2 port=$3 began accepted ended cpu_before cpu_after
    cpu_before=$(cpu "$root")
    began=$(now)
    submit_to "$port" || fail "$name: smtp-source failed" "$(tail -n 20 "$work"/*.log 2>/dev/null)"
    accepted=$(now)
    sink_done "$name"
    ended=$(now)
    cpu_after=$(cpu "$root")
    awk -v name="$name" -v n="$messages" -v took=$((ended - began)) -v accept=$((accepted - began)) \
        -v cpu=$((cpu_after - cpu_before)) -v results="$work/results" 'BEGIN {
            printf "%-10s %8.0f messages/s end to end   %8.0f accepted/s   %8.1f us CPU a message\n",
                name, n * 1e6 / took, n * 1e6 / accept, cpu / n
            printf "%s %f %f\n", name, n * 1e6 / took, cpu / n >> results
        }'
}

# --- the relays ------------------------------------------------------------------------------------

run_direct() {
    start_sink
    local began
    began=$(now)
    # Without a relay it is the source that misses the last answer.
    submit_to "$sink_port" 2>/dev/null || true
    sink_done "no relay"
    awk -v n="$messages" -v took=$(($(now) - began)) 'BEGIN {
        printf "%-10s %8.0f messages/s from source to sink: what the tools can do on this machine\n", "no relay", n * 1e6 / took
    }'
}

run_postrider() {
    local port
    start_sink
    port=$(free_port)
    rm -rf "$work/postrider"
    mkdir "$work/postrider"
    cat >"$work/postrider.toml" <<CONFIG
[server]
hostname = "postrider.bench.example"
data_dir = "$work/postrider"

[[listener]]
bind = "127.0.0.1:$port"

[provider.smarthost.sink]
host = "127.0.0.1"
port = $sink_port
tls = "off"

[provider.smarthost.sink.limits]
concurrency = $handovers

[[route]]
name = "default"
providers = ["smarthost.sink"]
CONFIG
    "$postrider" serve --config "$work/postrider.toml" >"$work/postrider.log" 2>&1 &
    relay=$!
    listening "$port" postrider
    measure postrider "$relay" "$port"
    kill "$relay"
    wait "$relay" || fail "postrider did not stop cleanly" "$(tail -n 20 "$work/postrider.log")"
    relay=0
}

run_postfix() {
    local port etc=$work/postfix/etc
    start_sink
    port=$(free_port)
    rm -rf "$work/postfix"
    mkdir -p "$etc" "$work/postfix/queue" "$work/postfix/data"
    chown postfix "$work/postfix/data"
    cat >"$etc/main.cf" <<CONFIG
compatibility_level = 3.6
queue_directory = $work/postfix/queue
data_directory = $work/postfix/data
maillog_file = $work/postfix.log
maillog_file_prefixes = $work
myhostname = postfix.bench.example
mydestination =
alias_maps =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_tls_security_level = none
smtp_tls_security_level = none
relayhost = [127.0.0.1]:$sink_port
default_destination_concurrency_limit = $handovers

# What makes it faster here than as shipped: no limit on one client's connections, no look-ups of
# names, and no brake on the door while the queue manager is behind.
smtpd_client_connection_count_limit = 0
smtpd_peername_lookup = no
smtp_host_lookup = native
disable_dns_lookups = yes
in_flow_delay = 0
CONFIG
    cat >"$etc/master.cf" <<CONFIG
127.0.0.1:$port inet n - n - - smtpd
pickup    unix n - n 60   1 pickup
cleanup   unix n - n -    0 cleanup
qmgr      unix n - n 300  1 qmgr
rewrite   unix - - n -    - trivial-rewrite
bounce    unix - - n -    0 bounce
defer     unix - - n -    0 bounce
trace     unix - - n -    0 bounce
flush     unix n - n 1000? 0 flush
proxymap  unix - - n -    - proxymap
smtp      unix - - n -    - smtp
relay     unix - - n -    - smtp
error     unix - - n -    - error
retry     unix - - n -    - error
discard   unix - - n -    - discard
anvil     unix - - n -    1 anvil
scache    unix - - n -    1 scache
postlog   unix-dgram n - n - 1 postlogd
CONFIG
    postfix -c "$etc" start >"$work/postfix-start.log" 2>&1 || fail "Postfix does not start" "$(cat "$work"/postfix*.log)"
    postfix_running=yes
    listening "$port" postfix
    measure postfix "$(tr -d ' ' <"$work/postfix/queue/pid/master.pid")" "$port"
    postfix -c "$etc" abort >/dev/null 2>&1 || true
    # The next run takes its folders, so nothing may be left in them.
    local deadline=$((SECONDS + 30))
    while postfix -c "$etc" status >/dev/null 2>&1; do
        [ $SECONDS -lt $deadline ] || fail "Postfix does not stop"
        sleep 0.1
    done
    postfix_running=
}

# --- the comparison --------------------------------------------------------------------------------

if [ "$only" != postfix ]; then
    postrider=${POSTRIDER:-}
    if [ -z "$postrider" ]; then
        cargo build --release --bin postrider
        postrider=${CARGO_TARGET_DIR:-target}/release/postrider
    fi
    [ -x "$postrider" ] || fail "there is no program at $postrider"
fi

printf '%s messages of %s octets over %s sessions, at most %s handovers at once; %s processors; spools on %s\n\n' \
    "$messages" "$size" "$sessions" "$handovers" "$(nproc)" "$(stat -f -c %T "$work")"
[ "$(stat -f -c %T "$work")" != tmpfs ] || printf 'This is memory: fsync costs nothing here. Set WORK to a folder on a disk.\n\n'

run_direct
for _ in $(seq "$rounds"); do
    [ "$only" = postfix ] || run_postrider
    [ "$only" = postrider ] || run_postfix
done

awk '
    function median(values, n,    i, j, swap) {
        for (i = 2; i <= n; i++) for (j = i; j > 1 && values[j - 1] > values[j]; j--) {
            swap = values[j]; values[j] = values[j - 1]; values[j - 1] = swap
        }
        return n % 2 ? values[(n + 1) / 2] : (values[n / 2] + values[n / 2 + 1]) / 2
    }
    { count[$1]++; rate[$1, count[$1]] = $2; cpu[$1, count[$1]] = $3 }
    END {
        printf "\n"
        for (name in count) {
            for (i = 1; i <= count[name]; i++) { rates[i] = rate[name, i]; cpus[i] = cpu[name, i] }
            m[name] = median(rates, count[name]); c[name] = median(cpus, count[name])
            printf "%-10s median of %d: %8.0f messages/s, %8.1f us CPU a message\n", name, count[name], m[name], c[name]
        }
        if (("postrider" in m) && ("postfix" in m) && c["postrider"] > 0)
            printf "\nPostrider : Postfix = %.1f x the rate, 1/%.1f of the CPU a message\n",
                m["postrider"] / m["postfix"], c["postfix"] / c["postrider"]
    }' "$work/results"
