#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# packages.sh COMMAND - installs the Debian packages that a command of ./run needs and that are missing.
set -eu

# One word list per command; python3 is in "lint" because CMake looks for it when tests are built.
build="make gcc g++ libc6-dev cmake ninja-build pkg-config
    libopenmpi-dev openmpi-bin libmicrohttpd-dev libcjson-dev libpcre2-dev libutf8proc-dev
    libsodium-dev libhwloc-dev libyaml-dev libcurl4-openssl-dev"
lint="$build python3 clang-format pmccabe binutils libcmocka-dev"

case ${1:-build} in
build | install) wanted=$build ;;
demo) wanted="$build curl" ;;
lint) wanted=$lint ;;
bench) wanted="$build python3 libcmocka-dev libdnnl-dev" ;;
fuzz | fuzz-coverage) wanted="$build python3 libcmocka-dev clang-14 libclang-rt-14-dev llvm-14 libomp-14-dev" ;;
test) wanted="$lint python3-pytest python3-venv curl" ;;
*) echo "packages.sh: unknown command \"$1\"" >&2; exit 2 ;;
esac

if ! command -v dpkg-query >/dev/null 2>&1; then
    echo "packages.sh: not a Debian system; going on with what is there.  Debian's names: $(echo $wanted)" >&2
    exit 0
fi
missing=
for package in $wanted; do
    status=$(dpkg-query -W -f='${db:Status-Abbrev}' "$package" 2>/dev/null || true)
    case $status in
    ii*) ;;
    *) missing="$missing $package" ;;
    esac
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -eq 0 ]; then
    as_root=
elif command -v sudo >/dev/null 2>&1; then
    as_root=sudo
else
    echo "packages.sh: install these as root, then try again:$missing" >&2
    exit 1
fi
echo "installing:$missing"
install() {
    # shellcheck disable=SC2086
    $as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -q --no-install-recommends $missing </dev/null
}
# Fresh machines have no package lists, and old lists name versions that are gone: both end here.
if ! install; then
    $as_root apt-get update -q
    install
fi
