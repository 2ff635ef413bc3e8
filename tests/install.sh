#!/usr/bin/env bash
# Installs what the tests and checks need and this machine lacks, and says so. Quiet and quick when
# everything is there, so it runs before each of them.
#
#   tests/install.sh peers       the servers and clients that the tests talk to
#   tests/install.sh checkers    the tools behind `make check`
#
# Peers from Debian go to the system; the others go under target/peers, with a launcher each in
# target/peers/bin, so that `cargo clean` takes them away.
set -euo pipefail
cd "$(dirname "$0")/.."

peers=$PWD/target/peers
moto='moto[server]==5.2.5'
aiosmtpd='aiosmtpd==1.4.6'
ses_local='aws-ses-v2-local@2.10.2'
nodemailer='nodemailer@10.6.0'
# The vendors' own libraries, which judge the requests that we make.
sdks=(sendgrid==6.12.5 resend==2.52.0 brevo-python==5.1.0 mailersend==2.2.0 scaleway==2.12.0 postmarker==1.0 sparkpost==1.3.10 pydantic==2.14.4)
# The newest that runs on Node 20.
oauth_mock='oauth2-mock-server@7.2.1'
maildev='maildev@3.0.0'
cargo_deny='0.20.2'

say() { printf 'install: %s\n' "$*"; }
fail() {
    printf 'install: %s\n' "$@" >&2
    exit 1
}

# Debian keeps smtp-source and smtp-sink where only root's PATH looks.
has() { PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

# Installs Debian packages without letting any of them start a service.
debian() {
    local by_hand="run as root: apt-get install $*"
    has apt-get || fail "this system has no apt-get; install by its own means: $*"
    if [ "$(id -u)" != 0 ] && ! { has sudo && sudo -n true 2>/dev/null; }; then
        fail "Debian packages are missing and this user may not install them" "$by_hand"
    fi
    say "installing Debian packages: $*"

    # Postfix is here for its tools; the machine gets no mail server that starts by itself.
    if [[ " $* " == *" postfix "* ]] && has debconf-set-selections; then
        echo 'postfix postfix/main_mailer_type select No configuration' | as_root debconf-set-selections
    fi
    local policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        # 101 is invoke-rc.d's "not allowed".
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
        # shellcheck disable=SC2064
        trap "$(declare -f as_root); as_root rm -f $policy" EXIT
    fi
    {
        as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq &&
            as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
    } >/dev/null || fail "apt-get failed" "$by_hand"
}

# Writes an executable launcher that becomes the program, so that a test can stop it by its process.
launcher() {
    mkdir -p "$peers/bin"
    printf '#!/bin/sh\n%s\n' "$2" >"$peers/bin/$1.new"
    chmod 755 "$peers/bin/$1.new"
    mv "$peers/bin/$1.new" "$peers/bin/$1"
}

# Runs an installation into a fresh folder and moves it into place when it is whole: a folder that
# exists is complete. `installed` tells whether this very version is there.
installed() { [ "$(cat "$peers/$1/.version" 2>/dev/null)" = "$2" ]; }
install_into() {
    local name=$1 version=$2
    shift 2
    say "installing $version into target/peers/$name"
    rm -rf "${peers:?}/$name.new"
    mkdir -p "$peers/$name.new"
    "$@" >"$peers/$name.log" 2>&1 || {
        tail -n 20 "$peers/$name.log" >&2
        fail "installing $version failed; the full log is target/peers/$name.log"
    }
    printf '%s\n' "$version" >"$peers/$name.new/.version"
    rm -rf "${peers:?}/$name"
    mv "$peers/$name.new" "$peers/$name"
}

install_peers() {
    # One at a time: two runs in one clone would take each other's folders away.
    mkdir -p "$peers"
    exec 9>"$peers/.lock"
    if has flock; then flock 9; fi

    local missing=()
    has smtp-source && has smtp-sink && has postfix || missing+=(postfix)
    local client
    for client in swaks curl msmtp openssl nmap haproxy sqlite3; do
        has "$client" || missing+=("$client")
    done
    has testssl || missing+=(testssl.sh)
    # Checks the alert rules and what is scraped.
    has promtool || missing+=(prometheus)
    # Counts instructions.
    has valgrind || missing+=(valgrind)
    # What lets Postfix log in as a client.
    ls /usr/lib/*/sasl2/libplain.so >/dev/null 2>&1 || missing+=(libsasl2-modules)
    has dovecot && [ -x /usr/lib/dovecot/submission ] || missing+=(dovecot-core dovecot-submissiond)
    python3 -c 'import pip' 2>/dev/null || missing+=(python3 python3-pip)
    has npm || missing+=(npm)
    [ ${#missing[@]} = 0 ] || debian "${missing[@]}"

    # A folder of its own instead of a virtual environment: Debian's python3 lacks the module that
    # makes one, and its pip refuses to touch the system's packages.
    # Compiled parts belong to one interpreter, so its version is part of what is installed.
    local python wanted
    python=$(python3 -c 'import sys; print(sys.executable)')
    wanted="$moto $aiosmtpd for $("$python" --version)"
    if ! installed python "$wanted"; then
        install_into python "$wanted" \
            "$python" -m pip install --disable-pip-version-check --root-user-action=ignore --target "$peers/python.new" "$moto" "$aiosmtpd"
    fi
    wanted="${sdks[*]} for $("$python" --version)"
    if ! installed sdks "$wanted"; then
        install_into sdks "$wanted" \
            "$python" -m pip install --disable-pip-version-check --root-user-action=ignore --target "$peers/sdks.new" "${sdks[@]}"
    fi
    if ! installed node "$ses_local $nodemailer"; then
        install_into node "$ses_local $nodemailer" \
            npm install --prefix "$peers/node.new" --no-audit --no-fund --no-save --loglevel=error "$ses_local" "$nodemailer"
    fi
    if ! installed mail "$oauth_mock $maildev"; then
        install_into mail "$oauth_mock $maildev" \
            npm install --prefix "$peers/mail.new" --no-audit --no-fund --no-save --loglevel=error "$oauth_mock" "$maildev"
    fi
    # The interpreter is written out: a launcher works whatever the PATH of the test is.
    launcher moto_server "PYTHONPATH='$peers/python' exec '$python' -m moto.server \"\$@\""
    launcher aiosmtpd "PYTHONPATH='$peers/python' exec '$python' -m aiosmtpd \"\$@\""
    launcher python-with-sdks "PYTHONPATH='$peers/sdks' exec '$python' \"\$@\""
    # Scripts for Python find botocore here, which came with moto.
    launcher python-with-botocore "PYTHONPATH='$peers/python' exec '$python' \"\$@\""
    # Scripts for node find nodemailer here.
    launcher node-with-peers "NODE_PATH='$peers/node/node_modules' exec '$(command -v node)' \"\$@\""
    launcher node-with-mail "NODE_PATH='$peers/mail/node_modules' exec '$(command -v node)' \"\$@\""
    launcher maildev "exec '$(command -v node)' '$peers/mail/node_modules/.bin/maildev' \"\$@\""
    launcher aws-ses-v2-local "exec '$(command -v node)' '$peers/node/node_modules/.bin/aws-ses-v2-local' \"\$@\""
}

install_checkers() {
    cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 ||
        fail "cargo fmt or cargo clippy is missing" "run: rustup component add rustfmt clippy"
    if ! cargo deny --version >/dev/null 2>&1; then
        say "installing cargo-deny $cargo_deny (compiles for some minutes)"
        # Its own target folder: it shares no build with this workspace.
        CARGO_TARGET_DIR="$PWD/target/cargo-deny" cargo install --quiet --locked --version "$cargo_deny" cargo-deny ||
            fail "cargo-deny could not be installed" "run: cargo install --locked cargo-deny"
        rm -rf target/cargo-deny
    fi
}

case "${1:-}" in
peers) install_peers ;;
checkers) install_checkers ;;
*) fail "usage: tests/install.sh peers|checkers" ;;
esac
