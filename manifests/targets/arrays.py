"""`.npy` bytes, without believing what they say of themselves: nothing is unpickled or evaluated, and no more memory is
taken than the bytes that are there.
"""

import io
import math
import re
from typing import Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

# As numpy writes it, versions 1.0 (length in 2 bytes) and 2.0 (in 4), of a dtype that holds numbers alone.
MAGIC = b"\x93NUMPY"
LENGTH_BYTES = {(1, 0): 2, (2, 0): 4}
SHAPE = rb"\((|\d{1,20},|\d{1,20}(?:, \d{1,20}){1,31})\)"
HEADER = re.compile(
    rb"\{'descr': '([<>|=][biuf]\d{1,2})', 'fortran_order': (True|False), 'shape': " + SHAPE + rb", \} *\n"
)


class BrokenArray(ValueError):
    """Bytes that are no whole `.npy` of numbers."""


def to_npy(array: NDArray[Any]) -> bytes:
    """Plain arrays only; equal arrays give equal bytes."""
    sink = io.BytesIO()
    npy_format.write_array(sink, array, allow_pickle=False)
    return sink.getvalue()


def from_npy(data: bytes) -> NDArray[Any]:
    """The array, read-only. BrokenArray where it is no array of numbers, or its header does not fit its bytes."""
    if data[:6] != MAGIC or tuple(data[6:8]) not in LENGTH_BYTES:
        raise BrokenArray("not the .npy of a plain array")
    start = 8 + LENGTH_BYTES[data[6], data[7]]
    offset = start + int.from_bytes(data[8:start], "little")
    header = HEADER.fullmatch(data, start, offset)
    if not header or offset > len(data):
        if b"'descr': '|O'" in data[start:offset]:
            raise BrokenArray("an array of Python objects; they are never unpickled")
        raise BrokenArray("its header is not that of an array of numbers")
    dtype = np.dtype(header[1].decode())
    shape = tuple(int(n) for n in header[3].replace(b" ", b"").split(b",") if n)
    wanted, there = math.prod(shape) * dtype.itemsize, len(data) - offset
    if wanted != there:
        raise BrokenArray(f"its header says {wanted} bytes of data, but it has {there}")
    return np.frombuffer(data, dtype, offset=offset).reshape(shape, order="F" if header[2] == b"True" else "C")
