"""What torch and onnxruntime raise: is the device lost, has memory run out, or is it the row?"""

import gc
import weakref

import numpy as np
import pytest
import torch

from coat.pipeline.worker.device_errors import free_memory, is_out_of_memory, is_sticky

STICKY = [
    torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
    torch.AcceleratorError("CUDA error: device-side assert triggered"),
    torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered"),
    RuntimeError("CUDA error: unspecified launch failure\nCUDA kernel errors might be reported asynchronously"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm( handle, opa, opb)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"),
    RuntimeError("cuFFT error: CUFFT_INTERNAL_ERROR"),
    RuntimeError("HIP error: an illegal memory access was encountered"),
    Exception("[ONNXRuntimeError] : 1 : FAIL : CUDA failure 700: an illegal memory access was encountered ; GPU=0"),
]
MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    MemoryError(),
    torch.AcceleratorError("CUDA error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    Exception("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : CUDA failure 2: out of memory ; GPU=0"),
]
ROWS = [
    ValueError("too loud"),
    RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling `cublasGemmEx`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"),
    RuntimeError("Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!"),
]


@pytest.mark.parametrize(
    ("errors", "sticky", "memory"), [(STICKY, True, False), (MEMORY, False, True), (ROWS, False, False)]
)
def test_errors_are_told_apart(errors: list[Exception], sticky: bool, memory: bool) -> None:
    for error in errors:
        assert is_sticky(error) == sticky, error
        assert is_out_of_memory(error) == memory, error


def test_what_an_expert_raises_from_it_counts_too() -> None:
    error = ValueError("no frames")
    error.__cause__ = STICKY[0]
    assert is_sticky(error)


def test_memory_of_the_failed_pass_is_freed() -> None:
    class Tensor(np.ndarray):
        """Can be referred to weakly."""

    kept = []

    def forward() -> None:
        activations = np.zeros(10).view(Tensor)
        kept.append(weakref.ref(activations))
        raise torch.OutOfMemoryError("CUDA out of memory")

    def attempt() -> Exception:
        try:
            forward()
        except torch.OutOfMemoryError as e:
            return e
        raise AssertionError

    error = attempt()
    gc.collect()
    assert kept[0]() is not None  # the error's frames hold it
    free_memory(error)
    assert kept[0]() is None
