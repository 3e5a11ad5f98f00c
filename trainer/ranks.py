"""What the ranks of a run send each other. A rank is one process of the run; all ranks must call these functions."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, gather_object

from coat.manifests import InputError, RunError
from coat.manifests.errors import one_line

T = TypeVar("T")


WAIT = timedelta(days=7)  # of ranks that share no step, and end at unlike times


def is_launched() -> bool:
    """Whether `accelerate launch` or torchrun began several ranks, this process among them."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def launched_accelerator() -> Accelerator | None:
    """As `accelerate launch` or torchrun has it, for what is no training; None where neither began this process."""
    if not is_launched():
        return None
    if not torch.accelerator.is_available():
        os.environ["ACCELERATE_USE_CPU"] = "true"  # else ranks on CPUs would not know of each other
    return Accelerator(kwargs_handlers=[InitProcessGroupKwargs(timeout=WAIT)])


def sum_over_ranks(accelerator: Accelerator, values: Sequence[float]) -> list[float]:
    """Each value summed over ranks, in double precision."""
    if accelerator.num_processes == 1:
        return [float(v) for v in values]
    tensor = torch.tensor(values, dtype=torch.float64, device=accelerator.device)
    return accelerator.reduce(tensor, "sum").tolist()  # type: ignore[union-attr]


def gather_from_ranks(accelerator: Accelerator, rows: list[Any]) -> list[Any]:
    """The lists of all ranks in one, by rank."""
    return gather_object(rows) if accelerator.num_processes > 1 else rows


@contextmanager
def raise_on_all_ranks(accelerator: Accelerator) -> Iterator[None]:
    """If the block raises on one rank, all ranks raise after it. The others would wait for a rank that left alone.

    It is a barrier, too. The block must not contain calls that need all ranks: some ranks would not reach them.
    """
    error: Exception | None = None
    try:
        yield
    except Exception as e:  # noqa: BLE001 - raised again by `raise_shared_error`
        error = e
    raise_shared_error(accelerator, error)


def result_or_error(call: Callable[[], T]) -> T | Exception:
    """The result of a call, or the exception it raised: for `raise_shared_error` later."""
    try:
        return call()
    except Exception as e:  # noqa: BLE001 - see above
        return e


def raise_shared_error(accelerator: Accelerator, error: Exception | None) -> None:
    """Raise, on all ranks, the error of the first rank that has one. InputError and RunError keep their type."""
    own_rank = accelerator.process_index
    own = [] if error is None else [(own_rank, *error_for_others(error, own_rank))]
    for rank, error_type, text in gather_from_ranks(accelerator, own):
        raise error if error is not None and rank == own_rank else error_type(text)


def error_for_others(error: Exception, rank: int) -> tuple[type[Exception], str]:
    """Type and text of what the other ranks raise for it."""
    for error_type in (InputError, RunError):
        if isinstance(error, error_type):
            return error_type, str(error)
    return RunError, f"rank {rank}: {type(error).__name__}: {one_line(error)}"
