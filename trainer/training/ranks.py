"""What the ranks of a run tell each other. A rank is one process of it; all of them call these together."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from coat.manifests import InputError, RunError
from coat.manifests.errors import one_line

T = TypeVar("T")


def summed(accelerator: Accelerator, values: Sequence[float]) -> list[float]:
    """Sums over ranks, in double precision."""
    if accelerator.num_processes == 1:
        return [float(v) for v in values]
    tensor = torch.tensor(values, dtype=torch.float64, device=accelerator.device)
    return accelerator.reduce(tensor, "sum").tolist()  # type: ignore[union-attr]


def gathered(accelerator: Accelerator, rows: list[Any]) -> list[Any]:
    """The lists of all ranks, one behind another."""
    return gather_object(rows) if accelerator.num_processes > 1 else rows


@contextmanager
def together(accelerator: Accelerator) -> Iterator[None]:
    """What one rank raises inside, all raise behind it: a rank that left alone would be waited for by the others.

    It is a barrier, too. Nothing inside may be a call that ranks make together, which some of them would not reach.
    """
    error: Exception | None = None
    try:
        yield
    except Exception as e:  # noqa: BLE001 - raised again by `agree`
        error = e
    agree(accelerator, error)


def attempted(call: Callable[[], T]) -> T | Exception:
    """What a call gives, or what it raised: to be told to the other ranks by `agree` later."""
    try:
        return call()
    except Exception as e:  # noqa: BLE001 - see above
        return e


def agree(accelerator: Accelerator, error: Exception | None) -> None:
    """Raise, on all ranks, the error of the first that has one. InputError and RunError stay what they are."""
    mine = accelerator.process_index
    for rank, kind, text in gathered(accelerator, [] if error is None else [(mine, *told(error, mine))]):
        raise error if error is not None and rank == mine else kind(text)


def told(error: Exception, rank: int) -> tuple[type[Exception], str]:
    """What the other ranks raise for it."""
    for kind in (InputError, RunError):
        if isinstance(error, kind):
            return kind, str(error)
    return RunError, f"rank {rank}: {type(error).__name__}: {one_line(error)}"
