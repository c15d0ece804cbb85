#!/usr/bin/env bash
# Puts library, headers, command, manual, completions, pkg-config file and CMake package where `make install` says, or with --uninstall takes
# them away. Everything that is installed finds the rest from its own place, so that the prefix can be moved as a whole.
#
# Reads prefix, bindir, libdir, includedir, DESTDIR and BUILT (where cargo has put the command and the library) from the environment,
# as the Makefile exports them.
set -euo pipefail
cd "$(dirname "$0")/.."

built=${BUILT:-target/release}
die() { echo "install: $*" >&2; exit 1; }

for name in prefix bindir libdir includedir; do
    [[ ${!name:-} == /* ]] || die "$name is '${!name:-}', but must be an absolute path (a stage goes into DESTDIR)"
done
stage=${DESTDIR:-}
[[ -z $stage || $stage == /* ]] || stage=$PWD/$stage

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
IFS=. read -r major minor _ <<<"$version"
file=libgraphpatch.so.$version
headers=$includedir/graphpatch
cmake=$libdir/cmake/graphpatch
pkgconfig=$libdir/pkgconfig
adapters=$libdir/graphpatch-adapters
share=$prefix/share
# Where bash, zsh and fish look for completions.
bash=$share/bash-completion/completions/graphpatch
zsh=$share/zsh/site-functions/_graphpatch
fish=$share/fish/vendor_completions.d/graphpatch.fish

if [[ ${1:-} == --uninstall ]]; then
    # Every link to the library, whatever its ABI's number is.
    find "$stage$libdir" -maxdepth 1 -type l -name 'libgraphpatch.so*' -lname "$file" -delete 2>/dev/null || true
    rm -f "$stage$libdir/$file" "$stage$bindir/graphpatch" "$stage$pkgconfig/graphpatch.pc" \
        "$stage$includedir"/graphpatch.{h,hpp} "$stage$headers"/*.hpp "$stage$adapters"/adapter-*.so \
        "$stage$cmake"/graphpatchConfig{,Version}.cmake "$stage$share"/man/man1/graphpatch{,-*}.1 \
        "$stage$bash" "$stage$zsh" "$stage$fish" \
        "$stage$bindir/.debug/graphpatch.debug" "$stage$libdir/.debug/$file.debug"
    # Folders that are nobody else's.
    for folder in "$headers" "$cmake" "$adapters"; do
        [[ ! -d $stage$folder ]] || rmdir "$stage$folder"
    done
    for folder in "$bindir" "$libdir"; do
        [[ ! -d $stage$folder/.debug ]] || rmdir --ignore-fail-on-non-empty "$stage$folder/.debug"
    done
    exit 0
fi

for product in libgraphpatch.so graphpatch; do
    [[ -f $built/$product ]] || die "$built/$product is not built: run \`make build\` first"
done
command -v objcopy >/dev/null || die "objcopy is missing: it is a part of binutils"
# Programs that link with the library ask for it by this name.
dynamic=$(LC_ALL=C readelf --wide --file-header --dynamic $built/libgraphpatch.so)
soname=$(sed -n 's/.*(SONAME).*\[\(.*\)\].*/\1/p' <<<"$dynamic")
[[ -n $soname ]] || die "$built/libgraphpatch.so has no SONAME"
word_bytes=$([[ $dynamic == *ELF64* ]] && echo 8 || echo 4)

# What is written into files is relative.
from() { realpath --canonicalize-missing --no-symlinks --relative-to="$1" "$2"; }
pc_to_prefix=$(from "$pkgconfig" "$prefix") pc_to_libdir=$(from "$pkgconfig" "$libdir")
pc_to_includedir=$(from "$pkgconfig" "$includedir")
cmake_to_libdir=$(from "$cmake" "$libdir") cmake_to_includedir=$(from "$cmake" "$includedir")
fill() {
    local text name
    text=$(<"packaging/$1.in")
    for name in version major minor file soname word_bytes pc_to_{prefix,libdir,includedir} cmake_to_{libdir,includedir}; do
        text=${text//@$name@/${!name}}
    done
    install -d "$stage$2"
    printf '%s\n' "$text" >"$stage$2/$1"
    chmod 644 "$stage$2/$1"
}

install -d "$stage$bindir" "$stage$libdir" "$stage$headers"
# Programs load what is left without the debug information; debuggers find that in `.debug` beside it, by its name and its sum.
put() {
    local to=$stage$2 debug=$stage${2%/*}/.debug/${2##*/}.debug
    install -d "${debug%/*}"
    objcopy --only-keep-debug "$1" "$debug"
    chmod 644 "$debug"
    objcopy --strip-all --add-gnu-debuglink="$debug" "$1" "$to.new"
    chmod 755 "$to.new"
    mv -f "$to.new" "$to"
}
put $built/graphpatch "$bindir/graphpatch"
put $built/libgraphpatch.so "$libdir/$file"
for link in "$soname" libgraphpatch.so; do
    ln -sfn "$file" "$stage$libdir/$link"
done
install -m 644 include/graphpatch.h bindings/cpp/graphpatch.hpp "$stage$includedir"
install -m 644 bindings/cpp/graphpatch/*.hpp "$stage$headers"
install -d "$stage$share/man/man1" "$stage${bash%/*}" "$stage${zsh%/*}" "$stage${fish%/*}"
$built/graphpatch complete --man "$stage$share/man/man1"
$built/graphpatch complete --shell bash >"$stage$bash"
$built/graphpatch complete --shell zsh >"$stage$zsh"
$built/graphpatch complete --shell fish >"$stage$fish"
fill graphpatch.pc "$pkgconfig"
fill graphpatchConfig.cmake "$cmake"
fill graphpatchConfigVersion.cmake "$cmake"
# Those that `graphpatch doctor --build` has put beside the built library.
if compgen -G "$built/graphpatch-adapters/adapter-*.so" >/dev/null; then
    install -d "$stage$adapters"
    install -m 644 $built/graphpatch-adapters/adapter-*.so "$stage$adapters"
fi

echo "installed $version into $stage$prefix" >&2
case $(from "$bindir" "$libdir") in
    . | ../lib | ../lib64 | ../lib/graphpatch | "../lib/$(uname -m)-linux-gnu") ;;
    *) echo "install: $bindir/graphpatch looks for the library in ../lib, ../lib64 and ../lib/$(uname -m)-linux-gnu; to use it," \
        "set GRAPHPATCH_LIBRARY=$libdir/$file" >&2 ;;
esac
