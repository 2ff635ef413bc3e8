# Postrider and Postfix, each as one measured run. Sourced by ../end_to_end.sh.

# With a slow disk, what goes before the relay's environment.
slow_disk() { [ "$fsync_us" = 0 ] || printf 'LD_PRELOAD=%s SLOW_FSYNC_US=%s' "$work/slow_fsync.so" "$fsync_us"; }

run_postrider() {
    local port entry
    start_sink
    port=$(free_port)
    rm -rf "$work/postrider"
    mkdir "$work/postrider"
    entry=$port
    if [ "$tls" = yes ]; then
        start_tls "$port"
        entry=$door_port
    fi
    {
        printf '[server]\nhostname = "postrider.bench.example"\ndata_dir = "%s"\n' "$work/postrider"
        printf '[[listener]]\nbind = "127.0.0.1:%s"\n' "$port"
        [ "$tls" = no ] || printf 'tls = "implicit"\ncertificate = "%s"\nprivate_key = "%s"\n' "$work/cert.pem" "$work/key.pem"
        if [ "$sink_kind" = ses ]; then
            printf '[provider.ses.sink]\nregion = "eu-west-1"\naccess_key_id = "AKIABENCH"\nsecret_access_key = "secret"\n'
            printf 'endpoint = "http://127.0.0.1:%s"\n[provider.ses.sink.limits]\nconcurrency = %s\n' "$sink_port" "$handovers"
        elif [ "$tls" = yes ]; then
            printf '[provider.smarthost.sink]\nhost = "localhost"\nport = %s\ntls = "implicit"\nca_file = "%s"\n' "$exit_port" "$work/ca.pem"
            printf '[provider.smarthost.sink.limits]\nconcurrency = %s\n' "$handovers"
        else
            printf '[provider.smarthost.sink]\nhost = "127.0.0.1"\nport = %s\ntls = "off"\n' "$sink_port"
            printf '[provider.smarthost.sink.limits]\nconcurrency = %s\n' "$handovers"
        fi
    } >"$work/postrider.toml"
    # shellcheck disable=SC2046
    env $(slow_disk) "$postrider" serve --config "$work/postrider.toml" >"$work/postrider.log" 2>&1 &
    relay=$!
    listening "$port" postrider
    measure postrider "$relay" "$entry"
    kill "$relay"
    wait "$relay" || fail "postrider did not stop cleanly" "$(tail -n 20 "$work/postrider.log")"
    relay=0
    stop_tls
}

run_postfix() {
    local port entry next etc=$work/postfix/etc
    start_sink
    port=$(free_port)
    rm -rf "$work/postfix"
    mkdir -p "$etc" "$work/postfix/queue" "$work/postfix/data"
    chown postfix "$work/postfix/data"
    entry=$port next=$sink_port
    if [ "$tls" = yes ]; then
        start_tls "$port"
        entry=$door_port next=$exit_port
    fi
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
relayhost = [127.0.0.1]:$next
default_destination_concurrency_limit = $handovers

# What makes it faster here than as shipped: no limit on one client's connections, no look-ups of
# names, and no brake on the door while the queue manager is behind.
smtpd_client_connection_count_limit = 0
smtpd_peername_lookup = no
smtp_host_lookup = native
disable_dns_lookups = yes
in_flow_delay = 0
CONFIG
    if [ "$tls" = yes ]; then
        cat >>"$etc/main.cf" <<CONFIG
smtpd_tls_security_level = encrypt
smtpd_tls_wrappermode = yes
smtpd_tls_cert_file = $work/cert.pem
smtpd_tls_key_file = $work/key.pem
smtpd_tls_session_cache_database = btree:\$data_directory/smtpd_scache
smtp_tls_security_level = encrypt
smtp_tls_wrappermode = yes
smtp_tls_session_cache_database = btree:\$data_directory/smtp_scache
tls_random_source = dev:/dev/urandom
CONFIG
    fi
    [ "$fsync_us" = 0 ] || echo 'import_environment = MAIL_CONFIG LD_PRELOAD SLOW_FSYNC_US' >>"$etc/main.cf"
    cat >"$etc/master.cf" <<CONFIG
127.0.0.1:$port inet n - n - - smtpd
pickup    unix n - n 60   1 pickup
cleanup   unix n - n -    0 cleanup
qmgr      unix n - n 300  1 qmgr
tlsmgr    unix - - n 1000? 1 tlsmgr
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
    # shellcheck disable=SC2046
    env $(slow_disk) postfix -c "$etc" start >"$work/postfix-start.log" 2>&1 || fail "Postfix does not start" "$(cat "$work"/postfix*.log)"
    postfix_running=yes
    listening "$port" postfix
    measure postfix "$(tr -d ' ' <"$work/postfix/queue/pid/master.pid")" "$entry"
    postfix -c "$etc" abort >/dev/null 2>&1 || true
    # The next run takes its folders, so nothing may be left in them.
    local deadline=$((SECONDS + 30))
    while postfix -c "$etc" status >/dev/null 2>&1; do
        [ $SECONDS -lt $deadline ] || fail "Postfix does not stop"
        sleep 0.1
    done
    postfix_running=
    stop_tls
}
