"""Audio files that are damaged, joined, cut and lied about: does coat crash, hang, or lose sound without a word?

    python -m benchmarks.fuzz_audio --files 2000 --seed 0
    python -m benchmarks.fuzz_audio --only 1234        (one file again; --keep FOLDER writes it there)

Each file is made from its number alone. coat may decode it, or refuse it in one line. Where it decodes it, it must give
no less than FFmpeg finds in the same bytes, no less than was joined, and what `probe` said before.
"""

import argparse
import faulthandler
import io
import os
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import av
import av.error
import av.logging
import numpy as np
import soundfile

from benchmarks.common import Figure, results
from coat.manifests.audio.clip import AudioError
from coat.manifests.audio.file import decode, probe
from coat.manifests.errors import one_line

RATE = 16_000
LEAST_A_MINUTE = 2000
HANGS_S = 30  # of a file that lasts a second or two
# Codecs put some samples before and after what they were given, and FFmpeg does not cut all of them off.
TOLERANCE_S = 0.16
SOUNDFILE_KINDS = {
    **{
        f"{kind} {code}": (kind, code)
        for kind in ("WAV", "WAVEX", "RF64", "W64", "AIFF")
        for code in ("PCM_16", "FLOAT")
    },
    **{
        f"WAV {code}": ("WAV", code)
        for code in ("PCM_U8", "PCM_24", "ULAW", "IMA_ADPCM", "MS_ADPCM", "GSM610", "G721_32")
    },
    **{"AU": ("AU", "PCM_16"), "CAF": ("CAF", "PCM_16"), "FLAC": ("FLAC", "PCM_16")},
    **{"Vorbis": ("OGG", "VORBIS"), "Opus": ("OGG", "OPUS"), "MP3": ("MP3", "MPEG_LAYER_III")},
}
# Container and codec, as FFmpeg calls them, and what its muxer is told.
FFMPEG_KINDS: dict[str, tuple[str, str, dict[str, str]]] = {
    "M4A": ("mp4", "aac", {}),
    "M4A in fragments": ("mp4", "aac", {"movflags": "frag_keyframe+empty_moov"}),
    "ALAC": ("ipod", "alac", {}),
    "WebM": ("webm", "libopus", {}),
    "WebM live": ("webm", "libopus", {"live": "1"}),
    "Matroska": ("matroska", "flac", {}),
    "AAC": ("adts", "aac", {}),
    "MP3 bare": ("mp3", "libmp3lame", {"write_xing": "0"}),
    "Ogg FLAC": ("ogg", "flac", {}),
    "WMA": ("asf", "wmav2", {}),
}
MONO = ("WAV GSM610", "WAV G721_32")


@dataclass(frozen=True)
class Tampered:
    """A file, what was done to it, and the seconds that went into it."""

    kind: str
    how: str
    data: bytes
    seconds: float
    is_whole: bool  # whether they must all be heard


@dataclass(frozen=True)
class Verdict:
    number: int
    kind: str
    how: str
    outcome: str  # decoded, refused; or a fault: lost, disagrees, crash, died
    said: str = ""

    @property
    def is_fault(self) -> bool:
        return self.outcome not in ("decoded", "refused")


@cache
def whole(kind: str, number: int) -> tuple[bytes, float]:
    """One of some whole files of a kind, and its seconds."""
    rng = np.random.default_rng([number, *kind.encode()])
    seconds = float(rng.choice([0.25, 0.5, 0.8]))
    channels = 1 if kind in MONO else int(rng.integers(1, 3))
    samples_TC = rng.uniform(-0.5, 0.5, (round(seconds * RATE), channels)).astype(np.float32)
    if kind in SOUNDFILE_KINDS:
        out = io.BytesIO()
        container, code = SOUNDFILE_KINDS[kind]
        soundfile.write(out, samples_TC, RATE, format=container, subtype=code)
        return out.getvalue(), seconds
    return with_ffmpeg(*FFMPEG_KINDS[kind], samples_TC), seconds


def with_ffmpeg(container: str, codec: str, options: dict[str, str], samples_TC: np.ndarray) -> bytes:
    out, layout = io.BytesIO(), ("mono", "stereo")[samples_TC.shape[1] - 1]
    with av.open(out, "w", format=container, options=options) as opened:
        stream: Any = opened.add_stream(codec, rate=RATE, layout=layout)
        stream.bit_rate = 48_000
        frame = av.AudioFrame.from_ndarray(samples_TC.reshape(1, -1), format="flt", layout=layout)
        frame.sample_rate = RATE
        resampler = av.AudioResampler(format=stream.format.name, layout=layout, rate=RATE)
        for converted in [*resampler.resample(frame), *resampler.resample(None), None]:
            opened.mux([packet for packet in stream.encode(converted) if packet.size])  # FLAC ends with an empty one
    return out.getvalue()


def cut(rng: np.random.Generator, data: bytes) -> bytes:
    return data[: int(rng.integers(1, len(data)))]


def flip(rng: np.random.Generator, data: bytes) -> bytes:
    """Some bits, mostly of the header."""
    made = bytearray(data)
    for _ in range(int(rng.integers(1, 6))):
        at = int(rng.integers(0, min(len(made), 160) if rng.random() < 0.7 else len(made)))
        made[at] ^= 1 << int(rng.integers(0, 8))
    return bytes(made)


def lie(rng: np.random.Generator, data: bytes) -> bytes:
    """A number of the header becomes another one."""
    made = bytearray(data)
    at = int(rng.integers(0, min(len(made) - 8, 120)))
    value = int(rng.choice([0, 1, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, len(data), len(data) // 2, 2 * len(data)]))
    form = str(rng.choice(["<I", ">I", "<H", ">H", "<Q", ">Q"]))
    size = struct.calcsize(form)
    made[at : at + size] = struct.pack(form, value % 2 ** (8 * size))
    return bytes(made)


def insert(rng: np.random.Generator, data: bytes) -> bytes:
    at = int(rng.integers(0, len(data)))
    return data[:at] + noise(rng, int(rng.integers(1, 3000))) + data[at:]


def drop(rng: np.random.Generator, data: bytes) -> bytes:
    at = int(rng.integers(0, len(data)))
    return data[:at] + data[at + int(rng.integers(1, 3000)) :]


def append(rng: np.random.Generator, data: bytes) -> bytes:
    """Zeros, noise, or a tag."""
    more = int(rng.integers(1, 5000))
    tag = b"ID3\x04\x00\x00" + bytes([0, 0, more >> 7 & 0x7F, more & 0x7F]) + b"\0" * (more & 0x3FFF)
    return data + (b"\0" * more, noise(rng, more), b"TAG" + b"x" * 125, tag)[int(rng.integers(0, 4))]


def prepend(rng: np.random.Generator, data: bytes) -> bytes:
    more = int(rng.integers(1, 5000))
    tag = b"ID3\x04\x00\x00" + bytes([0, 0, more >> 7 & 0x7F, more & 0x7F]) + b"\0" * (more & 0x3FFF)
    return (b"\0" * more, noise(rng, more), tag)[int(rng.integers(0, 3))] + data


def noise(rng: np.random.Generator, size: int) -> bytes:
    return rng.integers(0, 256, size, dtype=np.uint8).tobytes()


CHANGES: dict[str, Callable[[np.random.Generator, bytes], bytes]] = {
    "cut": cut,
    "flip": flip,
    "lie": lie,
    "insert": insert,
    "drop": drop,
    "append": append,
    "prepend": prepend,
}


def tampered(number: int) -> Tampered:
    """The file of a number."""
    rng = np.random.default_rng(number)
    kinds = [*SOUNDFILE_KINDS, *FFMPEG_KINDS]
    parts = [str(rng.choice(kinds))]
    if rng.random() < 0.35:
        parts += [parts[0] if rng.random() < 0.7 else str(rng.choice(kinds)) for _ in range(int(rng.integers(1, 3)))]
    made = [whole(kind, int(rng.integers(0, 4))) for kind in parts]
    kind, data = " + ".join(parts), b"".join(part for part, _ in made)
    seconds = sum(seconds for _, seconds in made)
    if rng.random() < (0.7 if len(parts) > 1 else 0.05):
        return Tampered(kind, "join" if len(parts) > 1 else "nothing", data, seconds, is_whole=True)
    names = [str(n) for n in rng.choice(list(CHANGES), int(rng.integers(1, 3)))]
    for name in names:
        data = CHANGES[name](rng, data) if len(data) > 16 else data
    return Tampered(kind, " ".join(names), data, seconds, is_whole=False)


def judge(number: int, path: Path, file: Tampered) -> Verdict:
    """What coat makes of it."""

    def verdict(outcome: str, said: str = "") -> Verdict:
        return Verdict(number, file.kind, file.how, outcome, said)

    stated: float | None = None
    try:
        stated = probe(str(path)).seconds
        decoded = decode(str(path)).seconds
    except AudioError as e:
        if file.how == "nothing":
            return verdict("refused for nothing", str(e))
        return verdict("refused", e.reason) if "\n" not in str(e) else verdict("crash", f"several lines: {e}")
    except Exception as e:  # noqa: BLE001  whatever else comes out is what is looked for
        return verdict("crash", f"{type(e).__name__}: {one_line(e)}")
    if abs(stated - decoded) > TOLERANCE_S:
        return verdict("disagrees", f"probe {stated:.3f} s, decoded {decoded:.3f} s")
    # FFmpeg may count more than there was: the padding of each of several joined files, or a header as sound.
    least = file.seconds if file.is_whole else min(ffmpeg_seconds(file.data), file.seconds)
    if decoded < least - TOLERANCE_S * file.kind.count("+") - TOLERANCE_S:
        whose = "were joined" if file.is_whole else "FFmpeg finds"
        return verdict("lost", f"{decoded:.3f} s of {least:.3f} s that {whose}")
    return verdict("decoded")


def ffmpeg_seconds(data: bytes) -> float:
    """Of all frames of the first stream that FFmpeg decodes, what is damaged passed over; 0 where it opens nothing."""
    samples = 0.0
    try:
        with av.open(io.BytesIO(data), "r") as opened:
            if not opened.streams.audio:
                return 0.0
            for packet in opened.demux(opened.streams.audio[0]):
                try:
                    samples += sum(frame.samples / frame.sample_rate for frame in packet.decode() if frame.sample_rate)
                except (av.error.FFmpegError, EOFError):
                    continue
    except (av.error.FFmpegError, EOFError, ValueError):
        pass
    return samples


def work(numbers: Sequence[int], results: Connection) -> None:
    """In a process of its own: a fault of C would take it along."""
    av.logging.set_level(None)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders of C complain there
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")
        for number in numbers:
            results.send(number)
            faulthandler.dump_traceback_later(HANGS_S, exit=True)
            file = tampered(number)
            path.write_bytes(file.data)
            results.send(judge(number, path, file))
            faulthandler.cancel_dump_traceback_later()


def judged(numbers: Sequence[int], workers: int) -> Iterator[Verdict]:
    """By several processes; one that died is replaced, and its file named."""
    context = get_context("fork")
    running: dict[Connection, tuple[Any, list[int], int]] = {}  # process, numbers left, the one in hand

    def start(left: list[int]) -> None:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=work, args=(left, theirs), daemon=True)
        process.start()
        theirs.close()
        running[ours] = process, left, -1

    for worker in range(workers):
        start(list(numbers[worker::workers]))
    while running:
        for ready in wait(list(running)):
            assert isinstance(ready, Connection)
            process, left, at = running[ready]
            try:
                found = ready.recv()
            except EOFError:
                del running[ready]
                process.join()
                if left:
                    file = tampered(left[0])
                    yield Verdict(left[0], file.kind, file.how, "died", f"exit code {process.exitcode}, number {at}")
                    start(left[1:])
                continue
            if isinstance(found, Verdict):
                running[ready] = process, left[1:], at
                yield found
            else:
                running[ready] = process, left, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0, help="Another million files.")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", type=int, help="One file by its number.")
    parser.add_argument("--keep", type=Path, help="Folder for the file of --only.")
    asked = parser.parse_args()
    if asked.only is not None:
        file = tampered(asked.only)
        if asked.keep:
            asked.keep.mkdir(parents=True, exist_ok=True)
            (asked.keep / str(asked.only)).write_bytes(file.data)
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "file").write_bytes(file.data)
            print(judge(asked.only, Path(folder, "file"), file))
        return
    first = asked.seed * 1_000_000
    began, counted, faults = time.perf_counter(), Counter[str](), list[Verdict]()
    with results("fuzz_audio") as found:
        for verdict in judged(range(first, first + asked.files), asked.workers):
            counted[verdict.outcome] += 1
            if verdict.is_fault:
                faults.append(verdict)
                print(verdict, file=sys.stderr)
        a_minute = asked.files / (time.perf_counter() - began) * 60
        said = ", ".join(f"{count} {outcome}" for outcome, count in counted.most_common())
        found.add(
            Figure(
                "Files that are tampered with, a minute",
                f"{a_minute:,.0f}",
                f">= {LEAST_A_MINUTE:,}",
                a_minute >= LEAST_A_MINUTE,
                said,
            )
        )
        found.add(
            Figure(
                f"Crashes, hangs and sound lost without a word, of {asked.files:,}",
                str(len(faults)),
                "0",
                not faults,
                f"seed {asked.seed}",
            )
        )
        found.data["counted"] = dict(counted)


if __name__ == "__main__":
    main()
