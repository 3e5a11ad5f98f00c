"""Writing a manifest of any length: a line is in memory at a time, and the file appears whole or not at all."""

import errno
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from coat.manifests import storage
from coat.manifests.errors import InputError, RunError, one_line
from coat.manifests.processes import this_process


def write_rows(path: str, rows: Iterable[dict[str, Any]]) -> None:
    """Write JSONL. InputError, RunError as `storage.write_bytes`."""
    write_lines(path, (json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_lines(path: str, lines: Iterable[str]) -> None:
    """The same of lines with their ends."""
    try:
        if storage.is_local(path):
            write_local_lines(storage.local_path(path), lines)
            return
        with tempfile.TemporaryDirectory(prefix="coat-manifest-") as folder:
            write_to(Path(folder, "manifest"), lines)
            storage.upload(Path(folder, "manifest"), path)
    except (FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError, FileNotFoundError) as e:
        reason = f"{e.filename}: {e.strerror}" if e.filename else one_line(e)
        raise InputError(f"{path}: cannot be written there ({reason}); choose another place") from e
    except OSError as e:
        raise RunError(f"{path}: cannot be written ({e.strerror or one_line(e)}); see to that, and run again") from e


def write_local_lines(target: Path, lines: Iterable[str]) -> None:
    """Beside the target, then renamed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "Is a directory", str(target))
    fd, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:40]}~{this_process()}~")
    os.close(fd)
    try:
        write_to(Path(temporary), lines)
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_to(path: Path, lines: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8", newline="") as f:
        f.writelines(lines)
        f.flush()
        os.fsync(f.fileno())
