# Ports, processes and numbers. Sourced by ../end_to_end.sh, which sets `work` and the load.

fail() {
    printf 'bench: %s\n' "$@" >&2
    exit 1
}

now() { printf '%s' "${EPOCHREALTIME/[.,]/}"; }

# Prints "CPU-microseconds PSS-KiB" of process $1 and everything below it, with what has ended and been
# waited for. The log writer is left out: elsewhere that is syslogd, which is not part of the relay.
usage_of() {
    # Processes that end meanwhile are somebody else's.
    local below
    below=$({ cat /proc/[0-9]*/stat 2>/dev/null || true; } | awk -v root="$1" -v tick="$(getconf CLK_TCK)" '
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
                if (above == root) { total += ticks[pid]; pids = pids " " pid }
            }
            printf "%d%s", total * 1000000 / tick, pids
        }')
    # shellcheck disable=SC2086
    set -- $below
    local cpu=$1 pid kib=0
    shift
    for pid in "$@"; do
        kib=$((kib + $(awk '/^Pss:/ { print $2 }' "/proc/$pid/smaps_rollup" 2>/dev/null || echo 0)))
    done
    printf '%s %s' "$cpu" "$kib"
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

# Where mail ends. It ends by itself with the last message, which is how the end is known. smtp-sink does
# so without answering that one; the relay may make of it what it likes, its run is over.
start_sink() {
    sink_port=$(free_port)
    if [ "$sink_kind" = ses ]; then
        "$ses_sink" "$sink_port" "$messages" >"$work/sink.log" 2>&1 &
    else
        local user=()
        [ "$(id -u)" != 0 ] || user=(-u nobody)
        smtp-sink "${user[@]}" -M "$messages" "127.0.0.1:$sink_port" 1024 >"$work/sink.log" 2>&1 &
    fi
    sink=$!
    listening "$sink_port" "the sink"
}

# TLS on both sides of a relay. The tools of Postfix speak none, so HAProxy stands between them and the
# relay $1: `door_port` is where mail is handed in in clear text, `exit_port` where it leaves encrypted.
start_tls() {
    door_port=$(free_port)
    exit_port=$(free_port)
    if [ ! -e "$work/tls.pem" ]; then
        local key=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes)
        openssl req -x509 "${key[@]}" -days 2 -subj /CN=bench-authority -keyout "$work/ca.key" -out "$work/ca.pem" 2>/dev/null
        openssl req "${key[@]}" -subj /CN=localhost -keyout "$work/key.pem" -out "$work/request.pem" 2>/dev/null
        openssl x509 -req -in "$work/request.pem" -CA "$work/ca.pem" -CAkey "$work/ca.key" -CAcreateserial -days 2 \
            -extfile <(printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n') -out "$work/cert.pem" 2>/dev/null
        cat "$work/cert.pem" "$work/key.pem" >"$work/tls.pem"
        chmod 644 "$work"/*.pem
    fi
    cat >"$work/haproxy.cfg" <<CONFIG
defaults
    mode tcp
    timeout connect 5s
    timeout client 10m
    timeout server 10m
listen door
    bind 127.0.0.1:$door_port
    server relay 127.0.0.1:$1 ssl verify none
listen exit
    bind 127.0.0.1:$exit_port ssl crt $work/tls.pem
    server sink 127.0.0.1:$sink_port
CONFIG
    haproxy -f "$work/haproxy.cfg" >"$work/haproxy.log" 2>&1 &
    proxy=$!
    listening "$door_port" HAProxy
}

stop_tls() {
    [ "$proxy" != 0 ] || return 0
    kill "$proxy" 2>/dev/null || true
    wait "$proxy" 2>/dev/null || true
    proxy=0
}

submit_to() {
    smtp-source -d -s "$sessions" -m "$messages" -l "$size" -r "$recipients" -f from@bench.example -t to@sink.example "127.0.0.1:$1"
}

# Waits for the sink to have everything.
sink_done() {
    local deadline=$((SECONDS + patience))
    while kill -0 "$sink" 2>/dev/null; do
        [ $SECONDS -lt $deadline ] ||
            fail "$1: the sink still waits for messages after $patience s" "$(tail -n 20 "$work"/*.log 2>/dev/null)"
        sleep 0.01
    done
    wait "$sink" || fail "the sink failed" "$(cat "$work/sink.log")"
    sink=0
}

# One measured run of relay $1, whose processes hang below $2 and which takes mail on port $3.
measure() {
    local name=$1 root=$2 port=$3 began accepted ended before after memory
    read -r before memory < <(usage_of "$root" && echo)
    began=$(now)
    submit_to "$port" || fail "$name: smtp-source failed" "$(tail -n 20 "$work"/*.log 2>/dev/null)"
    accepted=$(now)
    read -r after memory < <(usage_of "$root" && echo)
    sink_done "$name"
    ended=$(now)
    read -r after _ < <(usage_of "$root" && echo)
    awk -v scenario="$scenario" -v name="$name" -v n="$messages" -v took=$((ended - began)) -v accept=$((accepted - began)) \
        -v cpu=$((after - before)) -v memory="$memory" -v results="$work/results" 'BEGIN {
            printf "%-14s %-10s %8.0f messages/s   %8.0f accepted/s   %8.1f us CPU a message   %6.1f MiB\n",
                scenario, name, n * 1e6 / took, n * 1e6 / accept, cpu / n, memory / 1024
            printf "%s %s %f %f %f\n", scenario, name, n * 1e6 / took, cpu / n, memory / 1024 >> results
        }'
}

# What the tools can do on this machine, without a relay.
run_direct() {
    start_sink
    local began
    began=$(now)
    # Without a relay it is the source that misses the last answer.
    submit_to "$sink_port" 2>/dev/null || true
    sink_done "no relay"
    awk -v scenario="$scenario" -v n="$messages" -v took=$(($(now) - began)) -v results="$work/results" 'BEGIN {
        printf "%-14s %-10s %8.0f messages/s\n", scenario, "no relay", n * 1e6 / took
        printf "%s none %f 0 0\n", scenario, n * 1e6 / took >> results
    }'
}
