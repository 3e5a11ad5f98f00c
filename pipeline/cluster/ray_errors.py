"""What Ray's errors mean: why a worker died, and what to tell the user."""

from typing import Any, Literal

from coat.manifests.errors import RunError

DeathCause = Literal["crashed", "oom", "timeout", "lost"]  # lost: with its node, which is rarely the unit's fault


def death_cause(error: BaseException) -> DeathCause:
    """What Ray's error says of the end of an actor."""
    from ray.exceptions import ActorUnavailableError, OutOfMemoryError, RayActorError

    text = str(error)
    if isinstance(error, OutOfMemoryError) or "running low on memory" in text:
        return "oom"
    preempted = isinstance(error, RayActorError) and error.preempted
    if preempted or isinstance(error, ActorUnavailableError) or "node has died" in text or "node died" in text:
        return "lost"
    return "crashed"


def worker_error(error: Any) -> Exception:
    """What the worker raised: a RunError as it is, anything else named."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, RunError) else RunError(f"a worker failed: {error_summary(cause or error)}")


def error_summary(error: BaseException) -> str:
    """The line of an error that says most; of Ray's that is the last, but for want of memory the first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if death_cause(error) == "oom":
        return " ".join(lines[:1])[:400]
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"[:400]
