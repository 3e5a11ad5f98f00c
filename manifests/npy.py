"""`.npy` bytes, without believing what they say of themselves: nothing is unpickled, and no more memory is taken
than the bytes that are there.
"""

import io
from typing import Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray


def to_npy(array: NDArray[Any]) -> bytes:
    """Plain arrays only; equal arrays give equal bytes."""
    sink = io.BytesIO()
    npy_format.write_array(sink, array, allow_pickle=False)
    return sink.getvalue()


def from_npy(data: bytes) -> NDArray[Any]:
    """The array, read-only. ValueError where it is none, holds Python objects, or its header does not fit its bytes."""
    stream = io.BytesIO(data)
    version = npy_format.read_magic(stream)
    if version == (1, 0):
        shape, is_fortran, dtype = npy_format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, is_fortran, dtype = npy_format.read_array_header_2_0(stream)
    else:
        raise ValueError(f"version {version[0]}.{version[1]} of the format, which plain arrays do not need")
    if dtype.hasobject:
        raise ValueError("an array of Python objects; they are never unpickled")
    if not all(isinstance(n, int) and n >= 0 for n in shape):
        raise ValueError(f"a shape {shape}")
    wanted, there = dtype.itemsize, len(data) - stream.tell()
    for n in shape:  # in Python's integers, which do not overflow
        wanted *= n
    if wanted != there:
        raise ValueError(f"its header says {wanted} bytes of data, but it has {there}")
    values = np.frombuffer(data, dtype, offset=stream.tell())
    return values.reshape(shape, order="F" if is_fortran else "C")
