"""SwiftF0, CREPE and pYIN on piano and guitar notes whose keys are known.

The notes are recorded samples of TimGM6mb (Tim Brechbill, 2004; GPL-2), from Debian's package `timgm6mb-soundfont`;
COAT_SOUNDFONT is the path of its TimGM6mb.sf2. Nothing of it is kept here.

A soundfont's zone says which key its sample sounds at: the truth is that key's frequency, by who made the file and by
no tracker. Each sample is played at the key in its name (`Piano Db3`: 61, since middle C is C3 there): its beginning,
then its loop, at one level.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soxr

from coat.extractors import Waveform
from tests.extractors.conformance.conformance import loaded
from tests.extractors.experts.test_real import TRACKERS, VOICED, nearest

pytestmark = pytest.mark.real

NOTES = {  # by instrument: MIDI keys, chosen before any tracker was run
    "Piano 1": (42, 49, 56, 61, 68, 73, 84),
    "E.Piano 2": (48, 57, 66, 72),
    "Harpsichord": (52, 60, 69),
    "Nylon Guitar": (50, 54, 59, 64, 68, 72, 76),
    "Steel Guitar": (45, 50, 55, 59, 64, 69),
}
SECONDS = 0.6
KEY_RANGE, COARSE, FINE, SAMPLE, SCALE, ROOT = 43, 51, 52, 53, 56, 58  # generators of SoundFont 2.04, section 8.1.2


@dataclass(frozen=True)
class Zone:
    """One sample of an instrument, and the keys that it is played for."""

    name: str
    keys: range
    root: float  # MIDI key, with cents: what the sample sounds like at its own rate
    rate: int  # Hz
    wave_T: np.ndarray  # up to the loop's end
    loop: int  # samples: how much of the end of `wave_T` is repeated

    def played(self, key: int, rate: int, seconds: float) -> Waveform:
        """The sample, faster or slower so that it sounds at `key`, at `rate` Hz."""
        own_rate = self.rate * 2 ** ((key - self.root) / 12)
        missing = max(0, int(seconds * own_rate) - len(self.wave_T))
        wave_T = np.concatenate([self.wave_T, np.resize(self.wave_T[-self.loop :], missing)])
        played_T = soxr.resample(wave_T, own_rate, rate)[: int(seconds * rate)]
        return (0.5 * played_T / np.abs(played_T).max()).astype(np.float32)


class Soundfont:
    """What is needed of an .sf2: a RIFF file of lists; `pdta` has tables of instruments, zones and samples."""

    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        assert (data[:4], data[8:12]) == (b"RIFF", b"sfbk"), f"{path}: not a soundfont"
        lists = [part for name, part in chunks(data[12:]) if name == b"LIST"]
        parts = {name: part for listed in lists for name, part in chunks(listed[4:])}
        self.wave_T = np.frombuffer(parts[b"smpl"], dtype="<i2")
        self.samples = list(struct.iter_unpack("<20s5IBbHH", parts[b"shdr"]))
        self.instruments = [(text(name), first) for name, first in struct.iter_unpack("<20sH", parts[b"inst"])]
        self.bags = [first for first, _ in struct.iter_unpack("<HH", parts[b"ibag"])]
        self.generators = list(struct.iter_unpack("<Hh", parts[b"igen"]))

    def zones(self, instrument: str) -> Iterator[Zone]:
        (at,) = [i for i, (name, _) in enumerate(self.instruments) if name == instrument]
        shared: dict[int, int] = {}
        for bag in range(self.instruments[at][1], self.instruments[at + 1][1]):
            generators = shared | dict(self.generators[self.bags[bag] : self.bags[bag + 1]])
            if SAMPLE not in generators:
                shared = generators  # the first zone, if it has no sample, holds for the others
                continue
            yield self.zone(generators)

    def zone(self, generators: dict[int, int]) -> Zone:
        assert generators.get(SCALE, 100) == 100, "cents a key"
        name, start, end, loop, loop_end, rate, key, cents, _, _ = self.samples[generators[SAMPLE]]
        assert 0 <= start <= loop < loop_end <= end <= len(self.wave_T), text(name)
        root = generators.get(ROOT, key) - generators.get(COARSE, 0) - (generators.get(FINE, 0) + cents) / 100
        lowest, highest = struct.pack("<h", generators.get(KEY_RANGE, 127 << 8))
        return Zone(
            text(name), range(lowest, highest + 1), root, rate, self.wave_T[start:loop_end] / 2**15, loop_end - loop
        )


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at < len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        assert at + 8 + size <= len(data), f"{name}: longer than what it lies in"
        yield name, data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2


def text(name: bytes) -> str:
    return name.split(b"\0")[0].decode("ascii")


def test_trackers_of_f0_agree_with_each_other_and_with_the_key() -> None:
    """Within 50 cents of each other in 95% of the frames that all three call voiced, and in 85% of each note's; the
    median of each within 50 cents of the key. CREPE is `tiny` here: `full` takes two minutes of a core for the same.
    """
    path = os.environ.get("COAT_SOUNDFONT")
    if not path:
        pytest.skip("COAT_SOUNDFONT is not set")
    font = Soundfont(Path(path))
    experts = {name: loaded(name, checkpoint="tiny" if name == "crepe" else None) for name in TRACKERS}
    apart = []  # cents between the lowest and the highest of the three, `[voiced frames]` a note
    for instrument, keys in NOTES.items():
        zones = list(font.zones(instrument))
        for key in keys:
            zone = next(z for z in zones if key in z.keys)
            frames = {n: e.extract([zone.played(key, e.spec.sample_rate, SECONDS)])[0] for n, e in experts.items()}
            times = experts["pyin"].spec.times(len(frames["pyin"]))
            near_EN2 = np.stack([frames[n][nearest(experts[n], times, len(frames[n]))][:, :2] for n in TRACKERS])
            voiced_N = (near_EN2[:, :, 1] > VOICED).all(axis=0)
            cents_EN = 1200 * (near_EN2[:, voiced_N, 0] - np.log2(440) - (key - 69) / 12)  # above the key
            apart.append(np.ptp(cents_EN, axis=0))
            median_E, share = np.median(cents_EN, axis=1), (apart[-1] <= 50).mean()
            said = ", ".join(f"{n} {c:+.0f}" for n, c in zip(TRACKERS, median_E, strict=True))
            print(f"{zone.name}, key {key}: {said} cents; {share:.2f} of {voiced_N.sum()} of {len(times)} frames agree")
            assert voiced_N.mean() > 0.8, "a note is voiced"
            assert np.abs(median_E).max() < 50, "of the key"
            assert share >= 0.85, "of each other"
    share = float((np.concatenate(apart) <= 50).mean())
    print(f"{len(apart)} notes: {share:.3f} of {sum(map(len, apart))} frames within 50 cents of each other")
    assert share >= 0.95
