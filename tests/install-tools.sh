#!/bin/sh
# Install the programs that tests start, as far as this machine can have them:
#   install-tools.sh FOLDER fast|slow
# What cannot be had is named here, and the tests that need it are skipped.
set -u
folder=$1
mkdir -p "$folder/bin"

go_program() {  # NAME MODULE@VERSION
    command -v "$1" >/dev/null 2>&1 && return
    if ! command -v go >/dev/null 2>&1; then
        echo "no Go here: tests that need $1 will be skipped"
        return
    fi
    echo "building $1"
    GOBIN="$folder/bin" go install "$2" || echo "could not build $1: tests that need it will be skipped"
}

debian_package() {  # PACKAGE
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
        echo "cannot install $1 here: tests that need it will be skipped"
        return
    fi
    apt-get install -y -qq "$1" >/dev/null 2>&1 && return
    { apt-get update -qq && apt-get install -y -qq "$1"; } >/dev/null 2>&1 \
        || echo "could not install $1: tests that need it will be skipped"
}

if [ "$2" = fast ]; then
    go_program conformance github.com/opencontainers/distribution-spec/conformance@v0.0.0-20260831232431-97274622c111
    go_program registry github.com/distribution/distribution/v3/cmd/registry@v3.1.2
    command -v initdb >/dev/null 2>&1 || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || debian_package postgresql
else
    go_program cosign github.com/sigstore/cosign/v3/cmd/cosign@v3.1.3
fi
