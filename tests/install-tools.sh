#!/bin/sh
# Install the programs that tests start, as far as this machine can have them:
#   install-tools.sh FOLDER fast|slow|bench
# What cannot be had is named here, and what needs it is skipped.
set -u
folder=$(mkdir -p "$1" && cd "$1" && pwd)
mkdir -p "$folder/bin"

go_program() {  # NAME MODULE@VERSION
    command -v "$1" >/dev/null 2>&1 && return
    if ! command -v go >/dev/null 2>&1; then
        echo "no Go here: what needs $1 is skipped"
        return
    fi
    echo "building $1"
    GOBIN="$folder/bin" go install "$2" || echo "could not build $1: what needs it is skipped"
}

debian_package() {  # PACKAGE
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
        echo "cannot install $1 here: what needs it is skipped"
        return
    fi
    apt-get install -y -qq --no-install-recommends "$1" >/dev/null 2>&1 && return
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends "$1"; } >/dev/null 2>&1 \
        || echo "could not install $1: what needs it is skipped"
}

container_runtime() {  # PROGRAM PACKAGE
    PATH=$PATH:/usr/sbin command -v "$1" >/dev/null 2>&1 || debian_package "$2"
}

go_program_with_excludes() {  # NAME PACKAGE VERSION
    command -v "$1" >/dev/null 2>&1 && return
    if ! command -v go >/dev/null 2>&1; then
        echo "no Go here: what needs $1 is skipped"
        return
    fi
    echo "building $1"
    # Not by `go install`: its module excludes versions of others, which Go takes from a main module only.
    module=$(mktemp -d)
    (cd "$module" && go mod init tools && go get "$2@$3" && go build -o "$folder/bin/$1" "$2") >/dev/null 2>&1 \
        || echo "could not build $1: what needs it is skipped"
    rm -rf "$module"
}

if [ "$2" = fast ]; then
    {  # downloads, while Go compiles
        command -v initdb >/dev/null 2>&1 || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 \
            || debian_package postgresql
        container_runtime containerd containerd
        container_runtime podman podman
        container_runtime skopeo skopeo
    } &
    go_program conformance github.com/opencontainers/distribution-spec/conformance@v0.0.0-20260831232431-97274622c111
    go_program registry github.com/distribution/distribution/v3/cmd/registry@v3.1.2
    wait
elif [ "$2" = bench ]; then
    # What `make bench` measures ours beside.
    go_program crane github.com/google/go-containerregistry/cmd/crane@v0.22.1
    go_program oras oras.land/oras/cmd/oras@v1.3.6
    go_program regsync github.com/regclient/regclient/cmd/regsync@v0.11.7
    command -v skopeo >/dev/null 2>&1 || debian_package skopeo
else
    go_program_with_excludes containerd2 github.com/containerd/containerd/v2/cmd/containerd v2.0.5
    go_program_with_excludes docker-compose github.com/docker/compose/v2/cmd v2.40.3
    go_program helm helm.sh/helm/v3/cmd/helm@v3.19.0
    container_runtime redis-server redis-server
    container_runtime dockerd docker.io
    go_program cosign github.com/sigstore/cosign/v3/cmd/cosign@v3.1.3
fi
