#!/usr/bin/env bash
# Makes a folder by which programs are linked that run with an older glibc than this machine's: the C library's symbols as version
# 2.28 had them (manylinux_2_28), and the objects that every program begins with. Zig has both for every version of glibc; it comes as a wheel.
# The compiler, the linker and the C++ library stay those of the machine, as adapters have to fit libtorch.
#
#   older_glibc.sh FOLDER     then FOLDER/cc and FOLDER/c++ are the compilers
set -euo pipefail

version=2.28
folder=$(mkdir -p "$1" && cd "$1" && pwd)
die() { echo "older_glibc: $*" >&2; exit 1; }

if [[ ! -x $folder/ziglang/ziglang/zig ]]; then
    echo "older_glibc: installing ziglang into $folder (80 MB to load, once)" >&2
    rm -rf "$folder/ziglang.part"
    "${PYTHON:-python3}" -m pip install --quiet --disable-pip-version-check --no-input --no-deps --no-compile \
        --target "$folder/ziglang.part" ziglang==0.15.2
    mv "$folder/ziglang.part" "$folder/ziglang"
fi
[[ ! -e $folder/glibc/ready ]] || exit 0

# Linking any program has Zig write what it links programs with into its cache.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo 'int main(void) { return 0; }' >"$work/main.c"
for kind in -pie -no-pie; do
    ZIG_GLOBAL_CACHE_DIR=$work/cache ZIG_LOCAL_CACHE_DIR=$work/cache "$folder/ziglang/ziglang/zig" cc \
        -target "x86_64-linux-gnu.$version" -O1 $kind "$work/main.c" -o "$work/main" 2>"$work/said" || die "$(<"$work/said")"
done
rm -rf "$folder/glibc"
mkdir "$folder/glibc"
for file in libc.so.6 libm.so.6 libpthread.so.0 libdl.so.2 librt.so.1 libutil.so.1 libc_nonshared.a crt1.o Scrt1.o; do
    found=$(find "$work/cache" -name "$file" -print -quit)
    [[ -n $found ]] || die "Zig has made no $file"
    cp "$found" "$folder/glibc"
done

# Glibc 2.32 brought a variable by which the C++ library's headers know that there is one thread. Here they see that there are several.
echo 'char __libc_single_threaded __attribute__((visibility("hidden")));' |
    cc -x c -fPIC -c - -o "$work/threads.o"
ar rcs "$folder/glibc/libthreads.a" "$work/threads.o"
cd "$folder/glibc"
for name in m pthread dl rt util; do
    ln -s lib$name.so.[0-9] lib$name.so
done
echo "GROUP($PWD/libc.so.6 $PWD/libc_nonshared.a $PWD/libthreads.a AS_NEEDED($PWD/libdl.so.2 $PWD/libpthread.so.0 $PWD/libm.so.6))" >libc.so
for compiler in cc c++; do
    # The machine's own libgcc_s.so asks for newer symbols; there it is a file of the machine that the program runs on.
    printf '#!/bin/sh\nexec %q -B%q -L%q -Wl,--allow-shlib-undefined "$@"\n' \
        "$(command -v $compiler)" "$PWD" "$PWD" >"../$compiler"
    chmod +x "../$compiler"
done
touch ready
