"""W&B, trackio, MLflow and others, where a run asks for them: accelerate's trackers, on the main rank.

Metrics are in RUN/metrics.jsonl and TensorBoard whatever happens here, so a tracker that fails later is named and
left out; one that is not installed, or will not start, stops the run before any work.
"""

import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker, get_available_trackers

from coat.manifests import InputError, RunError, storage
from coat.manifests.errors import one_line
from coat.trainer.config.train_config import TrainConfig

MAX_CHARS = 200  # of an error of theirs
RUN_ID_FILE = "tracked.json"  # the run's id with trackers, so that a resumed run is one run there
USER_INFO = re.compile(r"(?<=//)[^/@\s]*@")  # a name and password inside a URL


def check_trackers(names: Sequence[str]) -> None:
    """InputError where one is unknown (own classes: accelerate.tracking.register_tracker_class) or not installed."""
    known = sorted(set(LOGGER_TYPE_TO_CLASS) - {"tensorboard"})
    for name in names:
        if name not in known:
            raise InputError(f"run.trackers: {name!r} is not one of {', '.join(known)} (TensorBoard is always written)")
        builtin = LOGGER_TYPE_TO_CLASS[name].__module__ == "accelerate.tracking"
        if builtin and name not in {str(available) for available in get_available_trackers()}:
            raise InputError(
                f"run.trackers: {name} is not installed; install it (`pip install {name}`) or leave it out"
            )


class Trackers:
    """The trackers of one run. Starts them: RunError where one will not."""

    def __init__(self, config: TrainConfig, folder: Path, log: Callable[[str], None]) -> None:
        self.log = log
        self.running: dict[str, GeneralTracker] = {}
        for name in config.run.trackers:
            try:
                tracker_class = LOGGER_TYPE_TO_CLASS[name]
                logging_dir = [str(folder)] if tracker_class.requires_logging_directory else []
                tracker = tracker_class(config.run.project, *logging_dir, **tracker_options(name, folder))
                tracker.start()
                tracker.store_init_configuration(flatten(config.to_dict()))
            except Exception as e:
                self.close()
                raise RunError(f"{name} did not start ({one_line(e, MAX_CHARS)}); log in there, or leave it out") from e
            self.running[name] = tracker

    def write(self, values: Mapping[str, float], step: int) -> None:
        self.call_each(lambda tracker: tracker.log(dict(values), step=step))

    def close(self) -> None:
        self.call_each(lambda tracker: tracker.finish())
        self.running.clear()

    def call_each(self, call: Callable[[GeneralTracker], None]) -> None:
        for name, tracker in list(self.running.items()):
            try:
                call(tracker)
            except Exception as e:  # noqa: BLE001 - days of training must not end with somebody's server
                self.log(
                    f"{name} failed ({one_line(e, MAX_CHARS)}) and is left out from here on; metrics.jsonl goes on"
                )
                del self.running[name]


def tracker_options(name: str, folder: Path) -> dict[str, Any]:
    """What names the run there, and lets a resumed one go on. MLflow begins a new run of the same name."""
    if name == "wandb":
        import wandb

        own = {"dir": str(folder), "id": run_id(folder), "resume": "allow"}
        return {"name": folder.name, "settings": wandb.Settings(console="off"), **own}
    return {"trackio": {"name": folder.name, "resume": "allow"}, "mlflow": {"run_name": folder.name}}.get(name, {})


def run_id(folder: Path) -> str:
    file = str(folder / RUN_ID_FILE)
    if not storage.exists(file):
        storage.write_bytes(file, storage.to_json({"id": secrets.token_hex(8)}))
    return storage.read_json(file)["id"]


def flatten(data: Any, prefix: str = "") -> dict[str, Any]:
    """`a.b.0: value`, without the passwords that URLs may hold."""
    if isinstance(data, dict | list):
        items = data.items() if isinstance(data, dict) else enumerate(data)
        return {k: v for name, value in items for k, v in flatten(value, f"{prefix}{name}.").items()}
    return {prefix.rstrip("."): USER_INFO.sub("", data) if isinstance(data, str) else data}
