"""A folder of this machine for files between two steps, gone when they are."""

import shutil
import tempfile
from pathlib import Path
from types import TracebackType

from coat.manifests import storage
from coat.manifests.errors import InputError, RunError
from coat.manifests.processes import process_is_alive, this_process

PREFIX = "coat-scratch-"


class ScratchFolder:
    """Made when it is first asked for, under `parent`. Those of processes that died are removed then."""

    def __init__(self, parent: str | None = None) -> None:
        """None: the temporary folder. InputError where it cannot be had."""
        self.parent = Path(tempfile.gettempdir()) if parent is None else make_folder(parent)
        self.made: Path | None = None

    def __enter__(self) -> "ScratchFolder":
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, at: TracebackType | None) -> None:
        self.clear()

    @property
    def path(self) -> Path:
        if self.made is None:
            for left in self.parent.glob(f"{PREFIX}*"):
                host, _, pid = left.name.removeprefix(PREFIX).rpartition("~")[0].rpartition("+")
                if pid.isdigit() and process_is_alive(host, int(pid)) is False:
                    shutil.rmtree(left, ignore_errors=True)
            try:
                self.made = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{this_process()}~", dir=self.parent))
            except OSError as e:
                raise RunError(
                    f"{self.parent}: cannot hold temporary files ({e.strerror}); give another --scratch"
                ) from e
        return self.made

    def clear(self) -> None:
        """The folder and all in it."""
        if self.made is not None:
            shutil.rmtree(self.made, ignore_errors=True)
            self.made = None


def make_folder(scratch: str) -> Path:
    if not storage.is_local(scratch):
        raise InputError(f"--scratch {scratch}: expected a folder of this machine")
    folder = storage.local_path(scratch)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise InputError(f"--scratch {scratch}: cannot be made ({e.strerror})") from e
    return folder
