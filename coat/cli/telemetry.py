"""Nothing that coat loads may phone home unasked: set in the environment, and taken back for what a user asks for."""

import os

QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "HF_HUB_DISABLE_TELEMETRY": "1", "WANDB_MODE": "disabled"}
OURS: set[str] = set()  # set here, not by the user


def silence() -> None:
    """What the user has set stays."""
    for name, value in QUIET.items():
        if name not in os.environ:
            os.environ[name] = value
            OURS.add(name)


def allow(name: str) -> None:
    """The user asked for it by another way. What they set in the environment still counts."""
    if name in OURS:
        del os.environ[name]
        OURS.discard(name)
