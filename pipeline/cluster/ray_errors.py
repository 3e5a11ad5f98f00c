"""What Ray's errors mean: why a worker died, and what to tell the user."""

import re
from typing import Any, Literal

from coat.manifests.errors import RunError

# lost: with its node, which is rarely the unit's fault; device: the process lives, its device is of no use to it
DeathCause = Literal["crashed", "oom", "timeout", "device", "lost"]


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


def error_node(error: BaseException) -> str:
    """The node of an actor whose constructor raised, as far as Ray's error tells it by its address; else ""."""
    import ray

    found = re.search(r"\bip=([^,)\s]+)", str(error))
    nodes = [n["NodeID"] for n in ray.nodes() if found and n["Alive"] and n["NodeManagerAddress"] == found[1]]
    return nodes[0] if len(nodes) == 1 else ""  # several on one machine have one address


def error_summary(error: BaseException) -> str:
    """The line of an error that says most; of Ray's that is the last, but for want of memory the first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if death_cause(error) == "oom":
        return " ".join(lines[:1])[:400]
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"[:400]
