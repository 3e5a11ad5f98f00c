"""Getting data on to a device, and models to compute there in the precision that was asked for."""

import ctypes
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from coat.extractors.expert import Options

if TYPE_CHECKING:
    import torch


def prepare_model(model: Any, device: str, options: Options) -> Any:
    """A torch module in eval mode on `device`, without gradients; compiled where that was asked for.

    Shapes are left open in compiling: clips come in all lengths, and each would be compiled anew.
    """
    import torch

    model = model.eval().requires_grad_(False).to(device)
    return torch.compile(model, dynamic=True) if options.compile else model


def to_device(array: NDArray[Any], device: str) -> "torch.Tensor":
    """Copied without waiting where the device is a GPU, which needs pinned memory."""
    import torch

    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.pin_memory().to(device, non_blocking=True) if device.startswith("cuda") else tensor.to(device)


def to_host(tensor: "torch.Tensor", dtype: str = "float32") -> NDArray[Any]:
    """As `dtype`: the one place where a batch waits for the device, which casts, so that the copy is small.

    Where the precision computed in is the smaller one, the copy is made in it.
    """
    import torch

    tensor, wanted = tensor.detach(), getattr(torch, dtype)
    if tensor.dtype.itemsize > wanted.itemsize:
        tensor = tensor.to(wanted)
    if tensor.is_cuda:
        host = torch.empty(
            tensor.shape, dtype=tensor.dtype, pin_memory=True
        )  # torch keeps these pages, and hands them on
        tensor = host.copy_(tensor, non_blocking=True)
        torch.cuda.current_stream().synchronize()
    return tensor.cpu().to(wanted).numpy()


def autocast(device: str, precision: str) -> AbstractContextManager[Any]:
    """Matrix products in `precision`, sums and norms in float32."""
    import torch

    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]
    return torch.autocast(torch.device(device).type, dtype=dtype, enabled=precision != "float32")


M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8  # of glibc's mallopt


def keep_freed_memory() -> None:
    """Let this process keep what it frees, for good: glibc gives large blocks back to the kernel, which zeroes each
    activation anew, page by page. A sixth of a wav2vec2's time on CPUs (docs/performance.md). Nothing without glibc.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        for parameter, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_ARENA_MAX, 1)):
            libc.mallopt(parameter, value)


def onnx_session(model: str | bytes, external: Mapping[str, bytes] | None = None) -> Any:
    """An onnxruntime session on the CPU with as many threads as this process gives to torch.

    `external` holds the files of weights beside the model, by name. A quantised model is computed in float between its
    roundings, as it is written: kernels of 8-bit integers add up in 16 bits where a CPU has no VNNI, overflow without a
    word, and give other values on one node of a cluster than on the next (microsoft/onnxruntime issue 14642).
    """
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()  # the worker sets it by its CPU share
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads would starve other workers
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    if external:
        names, data = list(external), list(external.values())
        options.add_external_initializers_from_files_in_memory(names, data, [len(d) for d in data])
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
