"""One row of a manifest."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import xxhash

from coat.manifests.corpus.digests import row_digest

SAFE_KEY = re.compile(r"[A-Za-z0-9_\-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Utterance:
    """A span of an audio file, its text, and a prompt with its response.

    `offset` and `duration` are seconds; no duration means until the end of the file. A row of text alone has neither
    path nor duration (0).
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
    def text_only(self) -> bool:
        return not self.audio_filepath

    @property
    def turns(self) -> tuple[tuple[str, str], ...]:
        """Prompts and answers that came before the prompt, oldest first. Audio stands in the first of all prompts."""
        return parse_turns(self.extra.get("turns"))

    @property
    def digest(self) -> str:
        """16 hex digits of the audio that this row selects: its id and span, not its text.

        The path counts as written, so a corpus that moves with its manifest keeps its targets.
        """
        return row_digest(self.id, self.audio_filepath, self.offset, self.duration)

    @property
    def key(self) -> str:
        """The id where it is safe as a file name without dots, else a readable part of it and a hash."""
        return safe_key(self.id)

    def to_row(self) -> dict[str, Any]:
        """The row in coat's native form; keys without a value are left out."""
        row: dict[str, Any] = {"id": self.id, "audio_filepath": self.audio_filepath or None}
        if self.offset:
            row["offset"] = self.offset
        for name in ("duration", "text", "prompt", "response"):
            if getattr(self, name) is not None and not (name == "duration" and self.text_only):
                row[name] = getattr(self, name)
        if self.choices:
            row["choices"] = list(self.choices)
        return row | dict(self.extra)


def safe_key(name: str) -> str:
    """As Utterance.key."""
    if SAFE_KEY.fullmatch(name):
        return name
    readable = re.sub(r"[^A-Za-z0-9_\-]+", "_", name).strip("_")[:40]
    return f"{readable}-{xxhash.xxh3_64_hexdigest(name.encode())}"


def parse_turns(value: Any) -> tuple[tuple[str, str], ...]:
    """ValueError where it is not a list of [prompt, answer]."""
    if not value:
        return ()
    turns = value
    if not isinstance(turns, list | tuple) or not all(isinstance(t, list | tuple) and len(t) == 2 for t in turns):
        raise ValueError("turns must be a list of [prompt, answer]")
    if not all(isinstance(text, str) for turn in turns for text in turn):
        raise ValueError("turns must hold strings")
    return tuple((prompt, answer) for prompt, answer in turns)
