"""libsndfile and FFmpeg's libraries: a second of sound in each format, written to memory and read back by coat."""

import io
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coat.doctor.finding import Finding, Request, broken, line_of, ok, warning

RATE = 48_000  # all of these formats have it
SECONDS = 1.0
TONE_HZ = 440.0
BIT_RATE = 96_000
SNDFILE = {"WAV": "PCM_16", "FLAC": "PCM_16", "OGG": "VORBIS", "MP3": "MPEG_LAYER_III"}
# What only FFmpeg reads, or reads where libsndfile cannot: its encoder, its container, its decoder.
FFMPEG = {
    "aac": ("aac", "mp4", "aac"),
    "alac": ("alac", "mp4", "alac"),
    "mp3": ("libmp3lame", "mp3", "mp3float"),
    "opus": ("libopus", "webm", "opus"),
    "vorbis": ("libvorbis", "webm", "vorbis"),
    "flac": ("flac", "flac", "flac"),
    "wma": ("wmav2", "asf", "wmav2"),
    "ac3": ("ac3", "ac3", "ac3"),
}
REINSTALL = f"{sys.executable} -m pip install --force-reinstall --no-deps"


def look(request: Request) -> Iterator[Finding]:
    yield from libsndfile()
    yield from ffmpeg()


def tone() -> NDArray[np.float32]:
    at_T = np.arange(int(RATE * SECONDS)) / RATE
    return (0.5 * np.sin(2 * np.pi * TONE_HZ * at_T)).astype(np.float32)


def fault(samples_T: NDArray[Any], rate: int) -> str | None:
    """What is wrong with the tone that was read back. Codecs add a frame or two."""
    if rate != RATE or abs(len(samples_T) / RATE - SECONDS) > 0.2:
        return f"{len(samples_T)} samples at {rate} Hz were read, {len(tone())} at {RATE} Hz were written"
    strengths = np.abs(np.fft.rfft(samples_T))
    heard = float(strengths.argmax()) * rate / len(samples_T)
    if abs(heard - TONE_HZ) > 5:
        return f"a tone of {TONE_HZ:.0f} Hz was read as {heard:.0f} Hz"
    return None


def libsndfile() -> Iterator[Finding]:
    try:
        import soundfile
    except (ImportError, OSError) as e:  # OSError: the library itself
        yield broken("libsndfile", f"cannot be loaded ({line_of(e)})", f"{REINSTALL} soundfile")
        return
    faults = {}
    for container, subtype in SNDFILE.items():
        file = io.BytesIO()
        try:
            soundfile.write(file, tone(), RATE, format=container, subtype=subtype)
            file.seek(0)
            wrong = fault(*soundfile.read(file, dtype="float32"))
        except (soundfile.LibsndfileError, ValueError) as e:
            wrong = line_of(e, 120)
        if wrong:
            faults[container] = wrong
    version = f"{soundfile.__libsndfile_version__} (soundfile {soundfile.__version__})"
    if faults:
        told = "; ".join(f"{container}: {wrong}" for container, wrong in faults.items())
        yield broken("libsndfile", f"{version}: {told}", f"{REINSTALL} soundfile")
    else:
        yield ok("libsndfile", f"{version}: reads {', '.join(SNDFILE).lower()}")


def ffmpeg() -> Iterator[Finding]:
    try:
        import av
        import av.error
        from av.codec.codec import UnknownCodecError

        from coat.manifests.audio.ffmpeg import read_whole
    except (ImportError, OSError) as e:
        yield broken("FFmpeg", f"PyAV cannot be loaded ({line_of(e)})", f"{REINSTALL} av")
        return
    reads, faults = [], {}
    for name, (encoder, container, decoder) in FFMPEG.items():
        if decoder not in av.codecs_available:
            faults[name] = "no decoder"
            continue
        try:
            data = encoded(encoder, container)
        except (av.error.FFmpegError, UnknownCodecError):
            reads.append(f"{name} (not tried: no encoder here)")
            continue
        try:
            wrong = fault(*read_whole(name, data, RuntimeError(), None))
        except (av.error.FFmpegError, ValueError, OSError) as e:
            wrong = line_of(e, 120)
        if wrong:
            faults[name] = wrong
        else:
            reads.append(name)
    av_version: Any = av
    version = f"{av_version.ffmpeg_version_info} (PyAV {av.__version__})"
    if not reads:
        yield broken("FFmpeg", f"{version}: reads nothing ({faults})", f"{REINSTALL} av")
        return
    yield ok("FFmpeg", f"{version}: reads {', '.join(reads)}")
    for name, wrong in faults.items():
        yield warning(f"FFmpeg {name}", f"{wrong}: such files fail", f"{REINSTALL} av (its wheels have all codecs)")


def encoded(encoder: str, container: str) -> bytes:
    """The tone, mono. FFmpegError or UnknownCodecError where there is no such encoder."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream: Any = out.add_stream(encoder, rate=RATE)
        stream.layout, stream.bit_rate = "mono", BIT_RATE
        stream.format = stream.codec.audio_formats[0]
        frame = av.AudioFrame.from_ndarray(tone()[np.newaxis], format="flt", layout="mono")
        frame.sample_rate = RATE
        resampler = av.AudioResampler(stream.format, "mono", RATE, frame_size=stream.codec_context.frame_size or None)
        for taken in [*resampler.resample(frame), *resampler.resample(None), None]:
            for packet in stream.encode(taken):
                out.mux(packet)
    return file.getvalue()
