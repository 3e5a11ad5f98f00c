"""The audio of a cut, which several experts hear: each file is opened once, and each clip decoded once.

A *cut* is some rows of the manifest: of each expert that still lacks some of them, one unit. A worker that has the
units of a cut in hand keeps what was decoded for one expert until the others have had it, at its own rate and at each
rate that was asked for. Each expert gets a copy of its own. T samples.
"""

import io
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock

from coat.extractors.expert import Waveform
from coat.manifests import addresses, storage
from coat.manifests.audio.clip import AudioError, Clip
from coat.manifests.audio.file import AudioFile
from coat.pipeline.decoding.decoded_row import DecodeCost, Source
from coat.pipeline.decoding.evidence import Evidence, Patience

# Of a clip at its own rate, 12 minutes at 44.1 kHz: of a longer one only the open file is shared, so that a worker's
# memory does not grow with the longest recording of a corpus.
KEPT_BYTES = 128 * 2**20


@dataclass(frozen=True)
class Cut:
    """Along with a unit: whose units of the same rows go to the same worker now. `number`: earlier ones come first."""

    number: int
    experts: tuple[str, ...]


class SharedFile:
    """A file that several threads decode spans of. The first of them opens it: it is downloaded and checked once.

    `has_parts`: rows are parts of it, so that other units, and other workers of this node, may need it too.
    """

    def __init__(self, audio: str, has_parts: bool = False) -> None:
        self.audio, self.has_parts, self.lock = audio, has_parts, Lock()
        self.opened: AudioFile | AudioError | None = None
        self.asking, self.asked = Lock(), False
        self.download: Future[bytes | None] | None = None
        self.seconds = 0.0  # that it took to open
        self.users: set[str] = set()  # experts that had it

    def download_in(self, pool: ThreadPoolExecutor) -> None:
        """Ask a store for the bytes, once, so that they are here when a thread comes to decode them."""
        with self.asking:
            if not self.asked and "://" in self.audio:  # a remote one, or none that is opened
                self.download = pool.submit(read_remote, self.audio, self.has_parts)
            self.asked = True

    def downloaded(self) -> bytes | None:
        """None where there are none: opening the file then reads it again, and judges what is wrong."""
        download, self.download = self.download, None  # a second try reads anew
        return download.result() if download and not download.exception() else None

    def open(self, evidence: Evidence, cost: DecodeCost, expert: str = "") -> AudioFile:
        """AudioError where it cannot be decoded; ReadFault where the machine, and not the file, may be at fault."""
        asked = time.perf_counter()
        with self.lock:
            started = time.perf_counter()
            cost.waited += started - asked
            if self.opened is None:
                try:
                    self.opened = evidence.believed(
                        self.audio, lambda data: AudioFile(self.audio, self.downloaded() if data is None else data)
                    )
                except AudioError as e:
                    self.opened = e
                self.seconds = time.perf_counter() - started
                cost.requests += 1
            elif expert not in self.users:
                cost.saved_requests += 1
                cost.saved_seconds += self.seconds
            self.users.add(expert)
        if isinstance(self.opened, AudioError):
            raise self.opened
        return self.opened


def read_remote(audio: str, has_parts: bool) -> bytes | None:
    """The bytes that lie at an address; None where these are on a disk."""
    address = addresses.parse(audio)
    source = None if storage.is_local(address.url) else address.open(keep=has_parts)
    return source.getvalue() if isinstance(source, io.BytesIO) else None


def open_file(audio: str, data: bytes | None, opened: AudioFile | None = None) -> AudioFile:
    """The one that is open, or that of bytes which were read for a second look."""
    if data is not None:
        return AudioFile(audio, data)
    return opened or AudioFile(audio)


@dataclass
class Sound:
    """A clip that is kept, what it was, and what was made of it."""

    clip: Clip
    source: Source
    seconds: float  # that decoding took
    resampled: dict[int, tuple[Waveform, float]] = field(default_factory=dict)  # by rate: and seconds that it took

    def at(self, rate: int, cost: DecodeCost) -> Waveform:
        """As `Clip.at`; always the receiver's own, to do with it as it likes."""
        if rate in self.resampled:
            waveform_T, seconds = self.resampled[rate]
            cost.saved_seconds += seconds
        else:
            started = time.perf_counter()
            waveform_T = self.clip.at(rate)
            self.resampled[rate] = waveform_T, time.perf_counter() - started
        return waveform_T.copy()


class KeptClip:
    """A place for what became of one row's audio. The first expert that asks decodes it, others wait for that."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.found: Sound | AudioError | None = None


class CutAudio:
    """The files and clips of a cut. An expert whose unit has not begun yet is taken to want every row."""

    def __init__(self, cut: Cut, patience: Patience) -> None:
        self.cut, self.patience = cut, patience
        self.lock = Lock()
        self.files: dict[str, SharedFile] = {}
        self.clips: dict[str, KeptClip] = {}  # by digest of a row
        self.wanted: dict[str, set[str] | None] = dict.fromkeys(cut.experts)  # None: of a unit that has not begun

    def begin(self, expert: str, rows: Iterable[str]) -> None:
        """The unit of an expert is in hand, and has these rows (digests)."""
        with self.lock:
            self.wanted[expert] = set(rows)
            self.drop_unwanted(list(self.clips))

    def end(self, expert: str) -> bool:
        """The expert's unit was committed or given up. Whether no unit of the cut is left."""
        with self.lock:
            del self.wanted[expert]
            self.drop_unwanted(list(self.clips))
            return not self.wanted

    def had(self, expert: str, row: str) -> None:
        """An expert has all that it needs of a row's audio."""
        with self.lock:
            if rows := self.wanted.get(expert):  # none where its unit was given up meanwhile
                rows.discard(row)
            self.drop_unwanted([row])

    def drop_unwanted(self, rows: Iterable[str]) -> None:
        for row in rows:
            if not any(wanted is None or row in wanted for wanted in self.wanted.values()):
                self.clips.pop(row, None)

    def file(self, audio: str, has_parts: bool) -> SharedFile:
        with self.lock:
            return self.files.setdefault(audio, SharedFile(audio, has_parts))

    def sound(
        self, row: str, rate: int, decode: Callable[[], tuple[Clip, str | None]], cost: DecodeCost
    ) -> tuple[Clip, Source, Waveform]:
        """A row's clip, what it was, and the clip at this rate. What `decode` raises of the row it raises for every
        expert; a ReadFault only for the one that met it.
        """
        with self.lock:
            kept = self.clips.setdefault(row, KeptClip())
        asked = time.perf_counter()
        with kept.lock:
            started = time.perf_counter()
            cost.waited += started - asked
            if kept.found is None:
                cost.clips += 1
                try:
                    clip, decoder = decode()
                    kept.found = Sound(clip, Source(clip.digest, decoder), time.perf_counter() - started)
                except AudioError as e:
                    kept.found = AudioError(e.reason, str(e))  # without the frames of its traceback
            else:
                cost.saved_clips += 1
                cost.saved_seconds += kept.found.seconds if isinstance(kept.found, Sound) else 0.0
            if isinstance(kept.found, AudioError):
                raise AudioError(kept.found.reason, str(kept.found))
            return kept.found.clip, kept.found.source, kept.found.at(rate, cost)
