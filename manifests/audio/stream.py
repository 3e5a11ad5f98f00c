"""One stream of audio: a file, or a part of one, as samples. libsndfile first, FFmpeg for what it cannot read.

T samples, C channels.
"""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Protocol, cast

import numpy as np
import soundfile
from numpy.typing import NDArray

from coat.manifests.audio import containers, extents, faults, ffmpeg, flac_frames, marks, mp3_frames
from coat.manifests.audio.channels import Mixer
from coat.manifests.audio.clip import AudioError
from coat.manifests.audio.source import SourcePart
from coat.manifests.errors import one_line

# An MP3 frame takes bits from frames before it, so decoding begins this much before a span: right after
# a seek libsndfile gives up to 0.25 s of wrong samples.
MP3_PREROLL_S = 2.0
# To seek in an MP3 is to scan all headers before (70 ms for half an hour), and what comes then depends by an ulp on
# where decoding began. So an MP3 is decoded in blocks of this length, counted from its start: spans share them.
MP3_BLOCK_S = 60.0
# More frames than any file has: what libsndfile says of a FLAC that was written to a pipe
# (length unknown), and cannot seek in.
UNKNOWN_FRAMES = 1 << 40
MP3_PADDING = 6  # frames, with that of the Xing header
MP3_GUESS_S = 0.1  # how far libsndfile's guess of an MP3's length may be off before FFmpeg decodes it
MOST_RATE = 768_000  # Hz, that anybody samples sound at
PIECE_S = 30.0  # of a file, decoded at once


class Handle(soundfile.SoundFile):
    """Read once, to the end of what is wanted: soundfile asks for the place before a read and seeks to it after."""

    def seekable(self) -> bool:
        return False


class Stream:
    """A container with one stream of audio.

    AudioError where it is no audio, or was cut short. `decoder` says which library gives its samples. `keep`: the
    handle by which it was checked waits for the first span that is read, or for `let_go`.
    """

    block: tuple[int, NDArray[np.float32]] | None = None  # of an MP3: its number, and `[T, C]`
    rescue_T: NDArray[np.float32] | None = None  # what FFmpeg gives of what libsndfile cannot decode to its end

    def __init__(self, part: SourcePart, keep: bool = False) -> None:
        self.path, self.part, self.channel = part.path, part, part.source.channel
        self.whole_T: NDArray[np.float32] | None = None
        self.decoder, self.format, self.channels = "libsndfile", "", 1
        self.kept: list[Handle] = []  # one at most; of several threads one takes it
        try:
            f = self.open()
            try:
                check_not_cut(part, f)
                self.samples, self.rate, self.format, self.channels = f.frames, f.samplerate, f.format, f.channels
                self.seekable = soundfile.SoundFile.seekable(f)
                self.samples, doubt = samples_held(part, self.format, self.samples, self.rate)
                if not doubt and keep:
                    self.kept.append(f)
            finally:
                if not self.kept:
                    f.close()
            if not doubt:
                return
            cause: Exception = ValueError(doubt)
        except (soundfile.LibsndfileError, TypeError) as e:  # TypeError: a name that ends in .raw
            cause = e
        self.whole_T, self.rate = ffmpeg.read_whole(self.path, part.read(), cause, self.channel)
        self.samples, self.decoder = len(self.whole_T), "ffmpeg"

    def open(self) -> Handle:
        return self.part.opened(Handle)

    def fresh(self) -> Handle:
        """A handle that has not moved."""
        try:
            return self.kept.pop()
        except IndexError:
            return self.open()

    def let_go(self) -> None:
        """Close the handle that was kept."""
        with suppress(IndexError):
            self.kept.pop().close()

    def read(self, start: int, samples: int, decoders: set[str]) -> Iterator[NDArray[np.float32]]:
        """So many samples, mono, in pieces of PIECE_S; AudioError where they are not there or not finite.

        `decoders` is told which libraries gave them.
        """
        decoders.add(self.decoder)
        if self.whole_T is not None:
            yield np.ascontiguousarray(self.whole_T[start : start + samples])
            return
        done, mixer = 0, Mixer(self.path, self.channel)
        try:
            for piece_TC in self.mp3(start, samples) if self.format.startswith("MP") else self.direct(start, samples):
                done += len(piece_TC)
                yield mixer.mono(piece_TC)
            error = None
        except soundfile.LibsndfileError as e:  # the header was sound, so the data are not
            error = e
        if done < samples:
            said = (
                f"cannot be decoded to its end ({one_line(error, 200)})"
                if error
                else (f"{done} samples of {samples}; the file is cut short")
            )
            rest_T = self.rescued(AudioError("truncated", f"{self.path}: {said}"))[start + done : start + samples]
            decoders.add("ffmpeg")
            yield np.ascontiguousarray(rest_T)
        mixer.check()

    def rescued(self, error: AudioError) -> NDArray[np.float32]:
        """`[T]` of the whole, where FFmpeg gives all that the header promises without any complaint; else the error."""
        if self.rescue_T is None:
            try:
                rescue_T, rate = ffmpeg.read_whole(self.path, self.part.read(), error, self.channel, strict=True)
            except AudioError:
                raise error from None
            if (len(rescue_T), rate) != (self.samples, self.rate):
                raise error
            self.rescue_T = rescue_T
        return self.rescue_T

    def direct(self, start: int, samples: int) -> Iterator[NDArray[np.float32]]:
        """`[T, C]` in pieces; they end where the data do."""
        piece = round(PIECE_S * self.rate)
        with self.fresh() as f:
            if self.seekable and start:
                f.seek(start)
            elif start:  # GSM 6.10, G.721 and their like: decoded from the start
                for done in range(0, start, piece):
                    f.read(min(piece, start - done), dtype="float32")
            for done in range(0, samples, piece):
                wanted = min(piece, samples - done)
                samples_TC = cast(NDArray[np.float32], f.read(wanted, dtype="float32", always_2d=True))
                yield samples_TC
                if len(samples_TC) < wanted:
                    return

    def mp3(self, start: int, samples: int) -> Iterator[NDArray[np.float32]]:
        """As `direct`, from blocks that do not depend on the span."""
        size, stop = round(MP3_BLOCK_S * self.rate), start + samples
        for number in range(start // size, -(-stop // size)):
            first = number * size
            block = self.block  # several threads may decode spans of one file
            if block is None or block[0] != number:
                preroll = min(first, round(MP3_PREROLL_S * self.rate))
                with self.fresh() as f:
                    f.seek(first - preroll)  # also to 0: what comes then is by an ulp another sound than without
                    samples_TC = f.read(preroll + min(size, self.samples - first), dtype="float32", always_2d=True)
                block = number, cast(NDArray[np.float32], samples_TC)[preroll:]
                if not preroll and start <= first and first + len(block[1]) <= stop:
                    yield block[1]  # of a clip that is its own file nothing is left for others
                    if len(block[1]) < min(self.samples - first, size):
                        return
                    continue
                self.block = block
            wanted_TC = block[1][max(0, start - first) : stop - first]
            yield wanted_TC.copy()  # a clip should not keep its block
            if len(wanted_TC) < min(stop - first, size) - max(0, start - first):
                return


def samples_held(part: SourcePart, format: str, samples: int, rate: int) -> tuple[int, str]:
    """How many libsndfile will give of those that it states, and why FFmpeg is to be asked; empty where it is not."""
    if samples >= UNKNOWN_FRAMES:
        return samples, "its header does not say how long it is"
    if not format.startswith("MP"):
        return samples, ""
    with faults.reading(part.path), part.look() as f:
        data = marks.read_at(f, extents.after_id3(f, 0), -1)
    counted, frame = mp3_frames.count_samples(data), mp3_frames.frame_samples(data)
    doubt = f"its frames hold {counted} samples, libsndfile says {samples}"
    if mp3_frames.XING.match(data):  # states its length, without what the encoder put before and after it
        return samples, "" if counted - samples <= MP3_PADDING * frame else doubt
    is_right = samples - MP3_GUESS_S * rate <= counted <= samples + frame
    return min(counted, samples), "" if is_right else doubt


class OpenedFile(Protocol):
    """What libsndfile says of a file that it opened."""

    format: Any
    samplerate: Any
    extra_info: Any


def check_not_cut(part: SourcePart, opened: OpenedFile) -> None:
    """AudioError where libsndfile took a suffix (.au) for a header, or passed over a cut or a damaged one."""
    path = part.path
    if opened.format == "RAW":
        raise AudioError("unreadable", f"{path}: no header of an audio file; expected WAV, FLAC, OGG, MP3 or the like")
    if opened.samplerate > MOST_RATE:
        raise AudioError("unreadable", f"{part.path}: states a rate of {opened.samplerate} Hz; its header is damaged")
    if containers.log_states_more(opened.extra_info) or (opened.format == "OGG" and not ends_whole(part)):
        raise AudioError("truncated", f"{path}: shorter than its header says; the file is cut short")
    if opened.format == "FLAC":
        with part.look() as f:
            flac_frames.check_frames(path, f)


def ends_whole(part: SourcePart) -> bool:
    with part.look() as f:
        return containers.ends_with_whole_ogg_page(f)
