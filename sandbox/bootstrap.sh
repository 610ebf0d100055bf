#!/usr/bin/env bash
# Brings what this checkout needs, once. Everything goes below the checkout, except what only the
# machine's package manager carries (a JRE, Maven, docker-compose, Alertmanager).
#
#   bootstrap.sh python    uv, the virtual environment, the locked packages, the members
#   bootstrap.sh servers   Java and Maven, for Kafka
#   bootstrap.sh tools     promtool, pgbouncer, amtool, docker-compose and versitygw, for the tests
#   bootstrap.sh lock      write requirements.lock anew

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly MEMBERS=(libs/contracts libs/outbox libs/runtime services/intake services/relay
    services/eraser services/reporting sandbox)
readonly STATE=.sandbox
readonly TOOLS=$STATE/tools
readonly OLDEST_PYTHON=11
readonly OLDEST_JAVA=17
readonly OLDEST_GO=25 # 1.25
readonly VERSITYGW=v1.8.0

say() { printf '%s\n' "$*" >&2; }
fail() { say "lethe: $*"; exit 1; }
present() { command -v "$1" >/dev/null 2>&1; }

# --- the machine's packages ---------------------------------------------------------------------

# Runs a command as root, or says in one line what to do by hand: `as_root HINT COMMAND...`
as_root() {
    local hint=$1
    shift
    if ((EUID == 0)); then
        "$@"
    elif present sudo && { sudo -n true 2>/dev/null || [[ -t 0 ]]; }; then
        sudo "$@"
    else
        fail "neither root nor sudo here. As root, run: $hint"
    fi
}

# Package lists may be absent (container images) or old; brought once per run, and only when needed.
apt_update() {
    [[ -z ${UPDATED:-} ]] || return 0
    UPDATED=1
    say "apt-get update"
    as_root "apt-get update" apt-get -qq update >&2
}

apt_install() {
    local hint="apt-get install -y $*"
    present apt-get || fail "this machine has no apt. Install by hand: $*"
    say "$hint"
    local install=(env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y
        --no-install-recommends "$@")
    if ! apt-cache show "$1" >/dev/null 2>&1; then apt_update; fi
    as_root "$hint" "${install[@]}" >&2 && return
    apt_update
    as_root "$hint" "${install[@]}" >&2 || fail "apt could not install: $*"
}

# --- python -------------------------------------------------------------------------------------

# The newest of the machine's Pythons would miss wheels, so the plain one first.
find_python() {
    local candidate
    for candidate in python3 python3.11 python3.12 python3.13; do
        if "$candidate" -c "import sys; sys.exit(sys.version_info < (3, $OLDEST_PYTHON))" \
            2>/dev/null; then
            "$candidate" -c 'import sys; print(sys.executable)'
            return
        fi
    done
    fail "Python 3.$OLDEST_PYTHON or newer is needed: apt-get install -y python3"
}

find_uv() {
    if uv --version >/dev/null 2>&1; then
        command -v uv
        return
    fi
    local python=$1 own=$PWD/$TOOLS/uv
    if [[ ! -x $own/bin/uv ]]; then
        "$python" -m pip --version >/dev/null 2>&1 || apt_install python3-pip
        say "installing uv into $TOOLS"
        "$python" -m pip install --quiet --disable-pip-version-check --root-user-action=ignore \
            --target "$own" uv >&2 || fail "pip could not install uv"
    fi
    printf '%s\n' "$own/bin/uv"
}

fingerprint() {
    local member
    {
        pwd
        cat requirements.lock
        for member in "${MEMBERS[@]}"; do cat "$member/pyproject.toml"; done
    } | sha256sum | cut -d' ' -f1
}

install_python() {
    local stamp=.venv/.installed wanted
    wanted=$(fingerprint)
    if [[ -x .venv/bin/python && -f $stamp && $(<"$stamp") == "$wanted" ]]; then return; fi

    local python uv
    python=$(find_python)
    uv=$(find_uv "$python")
    # Compiled at once: the tests start many processes, and a machine may forbid Python to keep
    # what it compiles (PYTHONDONTWRITEBYTECODE), so that each would compile everything again.
    export UV_PYTHON_DOWNLOADS=never UV_COMPILE_BYTECODE=1 VIRTUAL_ENV=$PWD/.venv
    # A moved checkout or an upgraded Python leaves a .venv that does not run.
    if ! .venv/bin/python -c '' 2>/dev/null; then
        rm -rf .venv
        "$uv" venv --quiet --python "$python" .venv
    fi
    rm -f "$stamp"
    say "installing the locked packages into .venv"
    "$uv" pip sync --quiet --require-hashes requirements.lock
    local editable=() member
    for member in "${MEMBERS[@]}"; do editable+=(--editable "./$member"); done
    "$uv" pip install --quiet --no-deps "${editable[@]}"
    .venv/bin/python -m compileall -q "${MEMBERS[@]}"
    printf '%s\n' "$wanted" >"$stamp"
}

write_lock() {
    local python uv member except=()
    python=$(find_python)
    uv=$(find_uv "$python")
    for member in "${MEMBERS[@]}"; do except+=(--no-emit-package "lethe-${member##*/}"); done
    "$uv" pip compile --quiet --universal --generate-hashes --python-version "3.$OLDEST_PYTHON" \
        --no-annotate --no-emit-index-url --no-emit-find-links "${except[@]}" \
        --custom-compile-command "make lock" "$@" \
        pyproject.toml --group dev -o requirements.lock
    ! grep -nE 'https?://' requirements.lock || fail "requirements.lock must not name addresses"
}

# --- servers ------------------------------------------------------------------------------------

# Looks where the sandbox looks.
java_is_new_enough() {
    local java version
    for java in "${JAVA_HOME:+$JAVA_HOME/bin/java}" java /usr/lib/jvm/*/bin/java; do
        [[ -n $java ]] && present "$java" || continue
        version=$("$java" -version 2>&1 | sed -nE '1s/.*version "([0-9]+).*/\1/p')
        if [[ -n $version ]] && ((version >= OLDEST_JAVA)); then return 0; fi
    done
    return 1
}

# `default-jre-headless` is older than 17 on some releases that carry a newer one as well.
newest_jre() {
    local package
    present apt-get || fail "Kafka needs Java $OLDEST_JAVA or newer: install a JRE"
    apt-cache show openjdk-17-jre-headless >/dev/null 2>&1 || apt_update
    for package in openjdk-{21,17,25}-jre-headless; do
        if apt-cache show "$package" >/dev/null 2>&1; then
            printf '%s\n' "$package"
            return
        fi
    done
    printf 'default-jre-headless\n'
}

install_servers() {
    local jre
    if ! java_is_new_enough; then
        jre=$(newest_jre)
        apt_install "$jre"
        java_is_new_enough || fail "Kafka needs Java $OLDEST_JAVA or newer: install a newer JRE"
    fi
    # Maven is needed to bring Kafka's jars, once.
    compgen -G "$STATE/kafka-*/kafka_*.jar" >/dev/null || present mvn || apt_install maven
}

# --- tools --------------------------------------------------------------------------------------

# As root, apt downloads as a user of its own, who cannot write here.
download() { (cd "$2" && apt-get -qq -o APT::Sandbox::User=root download "$1" >&2); }

# Unpacks the Debian package of one program, so that no daemon of it is installed and started on the
# user's machine: `unpack PROGRAM PACKAGE [LIBRARIES]`, the libraries' packages as a pattern.
unpack() {
    local program=$1 package=$2 libraries=${3:-} one
    present "$program" || [[ -x $TOOLS/bin/$program ]] && return
    present apt-get || fail "this machine has no apt. Install by hand: $program"
    say "unpacking $program into $TOOLS"
    apt-cache show "$package" >/dev/null 2>&1 || apt_update
    mkdir -p "$TOOLS/bin" "$TOOLS/debian"
    unpack_package "$package"
    if [[ -z $libraries ]]; then
        ln -sf "../debian/usr/bin/$program" "$TOOLS/bin/$program"
        return
    fi
    for one in $(apt-cache depends "$package" | sed -nE "s/^ *Depends: ($libraries)$/\\1/p"); do
        unpack_package "$one"
    done
    start_with_libraries "$program"
}

unpack_package() {
    local folder
    folder=$(mktemp -d "$TOOLS/download.XXXXXX")
    download "$1" "$folder" || { apt_update && download "$1" "$folder"; } ||
        fail "apt could not bring $1"
    dpkg-deb -x "$folder"/*.deb "$TOOLS/debian"
    rm -rf "$folder"
}

# A script, because the program has to be told where the libraries are that came with it.
start_with_libraries() {
    cat >"$TOOLS/bin/$1" <<'SCRIPT'
#!/bin/sh
tree=$(dirname "$(dirname "$(readlink -f "$0")")")/debian
for libraries in "$tree"/usr/lib/*-linux-gnu; do
    export LD_LIBRARY_PATH="$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
done
exec "$tree/usr/sbin/$(basename "$0")" "$@"
SCRIPT
    chmod +x "$TOOLS/bin/$1"
}

# Says where a Go is that can build versitygw, if there is one.
find_go() {
    local go minor
    for go in go /usr/local/go/bin/go /usr/lib/go-1.*/bin/go; do
        present "$go" || continue
        minor=$("$go" env GOVERSION 2>/dev/null | sed -nE 's/^go1\.([0-9]+).*/\1/p')
        if [[ -n $minor ]] && ((minor >= OLDEST_GO)); then
            command -v "$go"
            return
        fi
    done
    return 1
}

newest_go() {
    local package
    present apt-get || fail "versitygw needs Go 1.$OLDEST_GO or newer: install it by hand"
    apt-cache show golang-go >/dev/null 2>&1 || apt_update
    for package in golang-1.{27,26,25}-go; do
        if apt-cache show "$package" >/dev/null 2>&1; then
            printf '%s\n' "$package"
            return
        fi
    done
    printf 'golang-go\n'
}

# The second S3 server. Kept under its version, so that another pin builds another one.
install_versitygw() {
    local go package target=$PWD/$TOOLS/versitygw-$VERSITYGW build
    [[ ! -x $target ]] || return 0
    if ! go=$(find_go); then
        package=$(newest_go)
        apt_install "$package"
        go=$(find_go) || fail "versitygw needs Go 1.$OLDEST_GO or newer, apt has an older one"
    fi
    say "building versitygw $VERSITYGW into $TOOLS"
    mkdir -p "$TOOLS"
    build=$(mktemp -d "$PWD/$TOOLS/go.XXXXXX")
    # Modules and objects of the build go with it; a module cache is read-only unless told.
    GOBIN=$build GOPATH=$build/path GOCACHE=$build/cache GOFLAGS="${GOFLAGS:-} -modcacherw" \
        "$go" install "github.com/versity/versitygw/cmd/versitygw@$VERSITYGW" >&2 ||
        { rm -rf "$build" && fail "go could not build versitygw $VERSITYGW"; }
    mv "$build/versitygw" "$target"
    rm -rf "$build"
}

install_tools() {
    unpack promtool prometheus
    unpack pgbouncer pgbouncer 'lib(c-ares|cares|event-)[^ ]*'
    # Installed, not unpacked: Debian's Alertmanager opens its default template at a fixed place.
    { present amtool && [[ -f /usr/share/prometheus/alertmanager/default.tmpl ]]; } ||
        apt_install prometheus-alertmanager
    present docker-compose || apt_install docker-compose
    install_versitygw
}

case ${1:-} in
python) install_python ;;
servers) install_servers ;;
tools) install_tools ;;
lock) shift && write_lock "$@" ;;
*) fail "usage: bootstrap.sh python|servers|tools|lock" ;;
esac
