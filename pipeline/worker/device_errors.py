"""What a model raises when its device gives up: want of memory, which may pass, and faults after which all else fails.

After an illegal access, a device-side assert or an ECC error every call to the device fails until its process ends
("sticky"). What it raises then says nothing about the rows that it had.
"""

import gc
import re
import traceback
from collections.abc import Iterator

import torch

from coat.manifests.errors import one_line

# Of torch (CUDA, HIP, cuDNN, cuBLAS, cuFFT) and onnxruntime.
STICKY = re.compile(
    r"(CUDA|HIP) error: (?!out of memory|(CUBLAS|HIPBLAS)_STATUS_(ALLOC_FAILED|INVALID_VALUE|NOT_SUPPORTED))"
    r"|CUDA failure (?!2:)\d+|CUDA driver error: (?!out of memory)"
    r"|C(UDNN|UBLAS|USOLVER)_STATUS_(INTERNAL_ERROR|EXECUTION_FAILED|NOT_INITIALIZED|MAPPING_ERROR)"
    r"|CUFFT_(INTERNAL_ERROR|EXEC_FAILED)|device-side assert|illegal memory access|uncorrectable ECC"
)
OUT_OF_MEMORY = re.compile(
    r"(CUDA|HIP)( driver)? error: out of memory|CUDA failure 2:|(CUBLAS|CUDNN)_STATUS_ALLOC_FAILED"
)


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error, what it was raised from, and so on."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__


def is_out_of_memory(error: BaseException) -> bool:
    return any(
        isinstance(e, torch.OutOfMemoryError | MemoryError) or OUT_OF_MEMORY.search(str(e)) for e in chain(error)
    )


def is_sticky(error: BaseException) -> bool:
    """Whether the device is lost to this process. Not where memory ran out."""
    if is_out_of_memory(error):
        return False
    return any(isinstance(e, torch.AcceleratorError) or STICKY.search(str(e)) for e in chain(error))


def summarized(error: BaseException) -> str:
    return f"{type(error).__name__}: {one_line(error)}"


def free_memory(error: BaseException) -> None:
    """Free what a failed pass has left: the error's frames hold its tensors. Call it where `error` is not caught."""
    for e in chain(error):
        traceback.clear_frames(e.__traceback__)
        e.__traceback__ = e.__context__ = None
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
