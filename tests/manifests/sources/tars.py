"""Tars for the tests of importers, written by `tarfile`."""

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.manifests.conftest import encoded, sine

Members = Iterable[tuple[str, bytes]]


def wav(seconds: float = 0.1, hz: float = 440.0) -> bytes:
    return encoded(sine(seconds, hz), "WAV", "PCM_16")


def as_json(**values: Any) -> bytes:
    return json.dumps(values).encode()


def add(tar: tarfile.TarFile, name: str, data: bytes = b"", **fields: Any) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    tar.addfile(info, io.BytesIO(data))


def write_tar(path: Path, members: Members, form: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in members:
            add(tar, name, data)
    return path
