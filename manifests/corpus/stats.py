"""What a corpus holds: hours, lengths, formats, and what its rows lack."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from coat.manifests.audio.clip import AudioError, AudioInfo
from coat.manifests.audio.file import probe
from coat.manifests.corpus.manifest import Manifest

HEADER_THREADS = 8
EDGES_S = (0.0, 1.0, 2.0, 3.0, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0, 300.0, 1800.0)  # of the histogram
BAR = 40  # characters of the longest bar


@dataclass
class ManifestStats:
    """Counts are of rows, but for `files` and what is counted by header (rates, channels, formats)."""

    path: str
    rows: int
    files: int
    seconds: float
    shortest_s: float | None
    median_s: float | None
    longest_s: float | None
    without: dict[str, int]  # audio, duration, text, prompt, response, choices: rows that lack it
    histogram: list[tuple[float, float | None, int]]  # from (s), to (s; None: no end), rows
    rates: dict[int, int] = field(default_factory=dict)  # Hz: files
    channels: dict[int, int] = field(default_factory=dict)
    formats: dict[str, int] = field(default_factory=dict)
    unreadable: dict[str, int] = field(default_factory=dict)  # reason: files

    @property
    def hours(self) -> float:
        return self.seconds / 3600

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "hours": self.hours}


def manifest_stats(
    path: str, read_headers: bool = True, advance: Callable[[int, int], None] | None = None
) -> ManifestStats:
    """Describe a manifest. Headers give formats, and durations where rows have none; `advance(1, files)` per file."""
    manifest = Manifest.read(path)
    audio = list(dict.fromkeys(u.audio for u in manifest if not u.text_only))
    headers: dict[str, AudioInfo] = {}
    unreadable: Counter[str] = Counter()
    if read_headers:
        with ThreadPoolExecutor(HEADER_THREADS) as pool:
            for name, info in zip(audio, pool.map(info_or_reason, audio), strict=True):
                if isinstance(info, str):
                    unreadable[info] += 1
                else:
                    headers[name] = info
                if advance:
                    advance(1, len(audio))
    known = [
        max(headers[u.audio].seconds - u.offset, 0.0) if u.duration is None else u.duration
        for u in manifest
        if u.audio in headers or (u.duration is not None and not u.text_only)
    ]
    lengths = sorted(known)
    fields = ("audio", "duration", "text", "prompt", "response", "choices")
    return ManifestStats(
        path=path,
        rows=len(manifest),
        files=len(audio),
        seconds=sum(lengths),
        shortest_s=lengths[0] if lengths else None,
        median_s=lengths[len(lengths) // 2] if lengths else None,
        longest_s=lengths[-1] if lengths else None,
        without={name: sum(getattr(u, name) in (None, "", ()) for u in manifest) for name in fields},
        histogram=histogram(lengths),
        rates=dict(Counter(h.rate for h in headers.values()).most_common()),
        channels=dict(Counter(h.channels for h in headers.values()).most_common()),
        formats=dict(Counter(h.format for h in headers.values()).most_common()),
        unreadable=dict(unreadable.most_common()),
    )


def info_or_reason(audio: str) -> AudioInfo | str:
    try:
        return probe(audio)
    except AudioError as e:
        return e.reason


def histogram(lengths: list[float]) -> list[tuple[float, float | None, int]]:
    """Rows by duration, without the empty bins before the shortest and after the longest."""
    ends = [*EDGES_S[1:], None]
    bins = [
        (low, high, sum(low <= s and (high is None or s < high) for s in lengths))
        for low, high in zip(EDGES_S, ends, strict=True)
    ]
    filled = [i for i, (_, _, rows) in enumerate(bins) if rows]
    return bins[filled[0] : filled[-1] + 1] if filled else []


def render_stats(s: ManifestStats) -> str:
    """For a terminal."""
    lines = [f"{s.path}: {s.rows} utterances in {s.files} files, {s.hours:.2f} h"]
    if s.histogram:
        lines.append(f"durations  {s.shortest_s:.2f} s to {s.longest_s:.2f} s, median {s.median_s:.2f} s")
        most = max(rows for _, _, rows in s.histogram)
        for low, high, rows in s.histogram:
            span = f"{low:g}-{high:g} s" if high is not None else f"over {low:g} s"
            lines.append(f"{span:>14}  {'█' * -(-rows * BAR // most)} {rows}")
    for name, counts, unit in (
        ("rates", s.rates, " Hz"),
        ("channels", s.channels, ""),
        ("formats", s.formats, ""),
        ("unreadable", s.unreadable, ""),
        ("without", {k: n for k, n in s.without.items() if n}, ""),
    ):
        if counts:
            lines.append(f"{name:<10} " + ", ".join(f"{key}{unit}: {n}" for key, n in counts.items()))
    return "\n".join(lines)
