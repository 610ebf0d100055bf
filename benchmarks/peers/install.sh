#!/usr/bin/env bash
# Brings the peers: the Python ones into .venv-peers, Debezium and Kafka Connect below .sandbox.
# Needs what `make install` and `sandbox/bootstrap.sh servers` bring.
#
#   install.sh         bring them, once
#   install.sh lock    write requirements.lock anew

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly PEERS=benchmarks/peers
readonly VENV=.venv-peers
readonly JARS=.sandbox/peers

find_uv() {
    if uv --version >/dev/null 2>&1; then command -v uv; else printf '.sandbox/tools/uv/bin/uv\n'; fi
}

install_python() {
    local stamp=$VENV/.installed wanted
    wanted=$(sha256sum <"$PEERS/requirements.lock")
    if [[ -f $stamp && $(<"$stamp") == "$wanted" ]]; then return; fi
    printf 'installing the peers into %s\n' "$VENV" >&2
    export UV_PYTHON_DOWNLOADS=never VIRTUAL_ENV=$PWD/$VENV
    rm -rf "$VENV"
    "$(find_uv)" venv --quiet --python .venv/bin/python "$VENV"
    "$(find_uv)" pip sync --quiet --require-hashes "$PEERS/requirements.lock"
    printf '%s\n' "$wanted" >"$stamp"
}

install_jars() {
    local profile=$1 target=$2
    if [[ -d $target ]]; then return; fi
    printf 'bringing %s through Maven\n' "$profile" >&2
    rm -rf "$target.draft"
    mvn -q -B -f "$PEERS/pom.xml" -P "$profile" dependency:copy-dependencies \
        -DoutputDirectory="$PWD/$target.draft"
    mkdir -p "$(dirname "$target")"
    mv "$target.draft" "$target"
}

case ${1:-} in
lock)
    "$(find_uv)" pip compile --quiet --universal --generate-hashes --python-version 3.11 \
        --no-annotate --no-emit-index-url --no-emit-find-links \
        --custom-compile-command "benchmarks/peers/install.sh lock" \
        "$PEERS/pyproject.toml" -o "$PEERS/requirements.lock"
    ;;
*)
    install_python
    install_jars connect "$JARS/connect"
    install_jars debezium "$JARS/plugins/debezium"
    ;;
esac
