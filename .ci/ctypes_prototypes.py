"""Makes the Python binding's table of the C ABI from the header: python ctypes_prototypes.py HEADER OUT."""

import re
import sys
from pathlib import Path

PLAIN = {"bool": "c_bool", "double": "c_double", "int64_t": "c_int64", "uint64_t": "c_uint64", "uint32_t": "c_uint32",
         "int32_t": "c_int32", "size_t": "c_size_t", "gp_status": "c_int32", "void": "None"}


def ctype(text: str) -> str:
    """Text that is borrowed is c_char_p; every other pointer, and every function, is an address."""
    name = re.sub(r"\b(const|struct)\b|\s|\*", "", text)
    if "*" in text:
        return "c_char_p" if name == "char" and text.count("*") == 1 and "const" in text else "c_void_p"
    return PLAIN.get(name, "c_void_p")


def main() -> None:
    header, out = Path(sys.argv[1]).read_text(), Path(sys.argv[2])
    abi = re.search(r"^#define GRAPHPATCH_ABI_VERSION (\d+)$", header, flags=re.M)[1]
    header = re.sub(r"/\*.*?\*/", "", re.sub(r"//.*", "", header), flags=re.S)
    lines = ['"""The calls of the C ABI: result and arguments. Generated from include/graphpatch.h (`make generate`)."""', "",
             "from ctypes import c_bool, c_char_p, c_double, c_int32, c_int64, c_size_t, c_uint32, c_uint64, c_void_p", "",
             f"ABI_VERSION = {abi}", "", "PROTOTYPES = {"]
    for result, name, arguments in re.findall(r"^([\w ]+[ *]+)(gp_\w+)\(([^)]*)\);", header, flags=re.M):
        given = [argument.strip() for argument in arguments.split(",") if argument.strip() not in ("", "void")]
        types = [ctype(re.sub(r"\w+$", "", argument)) for argument in given]
        lines.append(f'    "{name}": ({ctype(result)}, [{", ".join(types)}]),')
    out.write_text("\n".join([*lines, "}", ""]))


if __name__ == "__main__":
    main()
