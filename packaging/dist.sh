#!/usr/bin/env bash
# Makes build/dist/libgraphpatch-VERSION-x86_64-linux.tar.gz: what `make install` puts below a prefix, with the licenses and a bill
# of materials (CycloneDX, every crate that is in the library and the command), and without debug information. SHA256SUMS beside it
# has the sums of all that is there.
set -euo pipefail
cd "$(dirname "$0")/.."

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
name=libgraphpatch-$version-$(uname -m)-linux
out=build/dist
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT

BUILT=target/older-glibc/release \
    prefix=/$name bindir=/$name/bin libdir=/$name/lib includedir=/$name/include DESTDIR=$stage packaging/install.sh 2>/dev/null
rm -r "$stage/$name/bin/.debug" "$stage/$name/lib/.debug" # ten times as large as all the rest
cp LICENSE-MIT LICENSE-APACHE CHANGELOG.md "$stage/$name"
python3 packaging/materials.py >"$stage/$name/bill-of-materials.cdx.json"
mkdir -p "$out"
cp "$stage/$name/bill-of-materials.cdx.json" "$out"
tar -C "$stage" --sort=name --owner=0 --group=0 --numeric-owner --mtime='2000-01-01 00:00Z' -czf "$out/$name.tar.gz" "$name"
(cd "$out" && sha256sum -- *.tar.gz *.whl *.json 2>/dev/null >SHA256SUMS || true)
echo "$out/$name.tar.gz"
