"""eSpeak NG, as the package espeakng-loader brings it: its C API (speak_lib.h), of which a few functions are called.

The library's voice wavers from where it stopped last, and nothing in its API begins that anew. So every text is said in
a process of its own, forked of one that has said nothing: what is said then depends on the text and its settings alone.
"""

import atexit
import ctypes
import json
import os
import subprocess
import sys
from functools import cache
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

RETRIEVAL = 1  # AUDIO_OUTPUT_RETRIEVAL: samples go to the callback
RATE, PITCH = 1, 3  # espeak_PARAMETER
UTF8 = 1  # espeakCHARS_UTF8
CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
Samples = NDArray[np.int16]


class NotSaid(Exception):
    pass


def say(text: str, voice: str, words_a_minute: int, pitch: int) -> tuple[Samples, int]:
    """Mono, and its samples a second; `pitch` from 0 to 99, 50 the voice's own. SystemExit: eSpeak does not say it."""
    asked, answers = server().stdin, server().stdout
    assert asked is not None
    assert answers is not None
    asked.write(json.dumps([text, voice, words_a_minute, pitch]).encode() + b"\n")
    asked.flush()
    answer = json.loads(answers.readline() or b'{"error": "eSpeak NG has ended"}')
    if "error" in answer:
        raise SystemExit(answer["error"])
    return np.frombuffer(answers.read(2 * answer["samples"]), np.int16), answer["rate"]


@cache
def server() -> "subprocess.Popen[bytes]":
    """`serve` in a process of its own, until this one ends."""
    started = subprocess.Popen([sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    atexit.register(started.communicate)  # closes what it reads, and waits for it
    return started


def serve(asked: IO[bytes], answers: IO[bytes]) -> None:
    """An answer a line: JSON, and the samples behind it."""
    for line in asked:
        if not (child := os.fork()):
            answers.write(answer(*json.loads(line)))
            answers.flush()
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            answers.write(json.dumps({"error": f"eSpeak NG broke off at {line.decode().strip()}"}).encode() + b"\n")
            answers.flush()


def answer(text: str, voice: str, words_a_minute: int, pitch: int) -> bytes:
    try:
        samples_T, rate = said(text, voice, words_a_minute, pitch)
    except NotSaid as e:
        return json.dumps({"error": str(e)}).encode() + b"\n"
    return json.dumps({"samples": len(samples_T), "rate": rate}).encode() + b"\n" + samples_T.tobytes()


def said(text: str, voice: str, words_a_minute: int, pitch: int) -> tuple[Samples, int]:
    """By the library as it is loaded. NotSaid with the reason."""
    import espeakng_loader

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    rate = library.espeak_Initialize(RETRIEVAL, 0, espeakng_loader.get_data_path().encode(), 0)
    if rate <= 0:
        raise NotSaid("eSpeak NG does not start; install the package espeakng-loader anew")
    heard: list[Samples] = []

    def hear(samples: Any, count: int, _: int | None) -> int:
        if samples and count > 0:
            heard.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0  # go on

    callback = CALLBACK(hear)  # kept: the library calls it
    library.espeak_SetSynthCallback(callback)
    if library.espeak_SetVoiceByName(voice.encode()):
        raise NotSaid(f"eSpeak NG has no voice {voice}")
    library.espeak_SetParameter(RATE, words_a_minute, 0)
    library.espeak_SetParameter(PITCH, pitch, 0)
    written = text.encode() + b"\0"
    if library.espeak_Synth(written, len(written), 0, 0, 0, UTF8, None, None) or library.espeak_Synchronize():
        raise NotSaid(f"eSpeak NG does not say {text!r}")
    return np.concatenate(heard), rate


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer)
