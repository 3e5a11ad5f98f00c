"""One row of a manifest."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import xxhash

from coat.manifests.digests import row_digest

SAFE_KEY = re.compile(r"[A-Za-z0-9_\-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Utterance:
    """A span of an audio file, its text, and a prompt with its response.

    `offset` and `duration` are seconds; no duration means until the end of the file.
    """

    id: str
    audio: str  # path or URL that can be opened
    audio_filepath: str  # as it stands in the manifest
    offset: float = 0.0
    duration: float | None = None
    text: str | None = None
    prompt: str | None = None
    response: str | None = None
    choices: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)  # every other key of the row, as it was
    row: int = 0  # line in the manifest, from 1

    @property
    def digest(self) -> str:
        """16 hex digits of what this row asks to be heard: its id and span, not its text.

        The path counts as written, so a corpus that moves with its manifest keeps its targets.
        """
        return row_digest(self.id, self.audio_filepath, self.offset, self.duration)

    @property
    def key(self) -> str:
        """The id where it is safe as a file name without dots, else a readable part of it and a hash."""
        return key_of(self.id)

    def to_row(self) -> dict[str, Any]:
        """The row in coat's native form; keys without a value are left out."""
        row: dict[str, Any] = {"id": self.id, "audio_filepath": self.audio_filepath}
        if self.offset:
            row["offset"] = self.offset
        for name in ("duration", "text", "prompt", "response"):
            if getattr(self, name) is not None:
                row[name] = getattr(self, name)
        if self.choices:
            row["choices"] = list(self.choices)
        return row | dict(self.extra)


def key_of(name: str) -> str:
    """As Utterance.key."""
    if SAFE_KEY.fullmatch(name):
        return name
    readable = re.sub(r"[^A-Za-z0-9_\-]+", "_", name).strip("_")[:40]
    return f"{readable}-{xxhash.xxh3_64_hexdigest(name.encode())}"
