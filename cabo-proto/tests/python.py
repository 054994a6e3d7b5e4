# The other side of python.rs: the same layouts and bytes, by the module that D-1 says they are of.
import math
import struct
import sys


def shown(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return "nan" if math.isnan(value) else struct.pack(">d", value).hex()
    return "b" + value.hex()


for line in open(sys.argv[1], encoding="ascii"):
    layout, data = line.rstrip("\n").split("\t")
    try:
        size = struct.calcsize(layout)
        values = struct.unpack(layout, bytes.fromhex(data)[:size])
        print(size, ",".join(map(shown, values)), struct.pack(layout, *values).hex(), sep="\t")
    except struct.error as error:
        print("error", error, sep="\t")
