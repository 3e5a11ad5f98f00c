"""eSpeak NG, as the package espeakng-loader brings it: its C API (speak_lib.h), of which a few functions are called.

The library's voice wavers from where it stopped last, and nothing in its API begins that anew. So every text is said in
a process of its own: what is said then depends on the text and its settings alone.
"""

import ctypes
import multiprocessing
from functools import cache
from multiprocessing.pool import Pool
from typing import Any

import numpy as np
from numpy.typing import NDArray

RETRIEVAL = 1  # AUDIO_OUTPUT_RETRIEVAL: samples go to the callback
RATE, PITCH = 1, 3  # espeak_PARAMETER
UTF8 = 1  # espeakCHARS_UTF8
CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
Said = tuple[NDArray[np.int16], int]


def say(text: str, voice: str, words_a_minute: int, pitch: int) -> Said:
    """Mono, and its samples a second; `pitch` from 0 to 99, 50 the voice's own. SystemExit: eSpeak does not say it."""
    try:
        return processes().apply(said, (text, voice, words_a_minute, pitch))
    except ChildProcessError as e:
        raise SystemExit(str(e)) from e


@cache
def processes() -> Pool:
    """One at a time, each for one text."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context.Pool(1, maxtasksperchild=1)


def said(text: str, voice: str, words_a_minute: int, pitch: int) -> Said:
    """In a process that has said nothing yet. ChildProcessError, which its pool hands on: eSpeak does not say it."""
    import espeakng_loader

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    rate = library.espeak_Initialize(RETRIEVAL, 0, espeakng_loader.get_data_path().encode(), 0)
    if rate <= 0:
        raise ChildProcessError("eSpeak NG does not start; install the package espeakng-loader anew")
    heard: list[NDArray[np.int16]] = []

    def hear(samples: Any, count: int, _: int | None) -> int:
        if samples and count > 0:
            heard.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0  # go on

    callback = CALLBACK(hear)  # kept: the library calls it
    library.espeak_SetSynthCallback(callback)
    if library.espeak_SetVoiceByName(voice.encode()):
        raise ChildProcessError(f"eSpeak NG has no voice {voice}")
    library.espeak_SetParameter(RATE, words_a_minute, 0)
    library.espeak_SetParameter(PITCH, pitch, 0)
    written = text.encode() + b"\0"
    if library.espeak_Synth(written, len(written), 0, 0, 0, UTF8, None, None) or library.espeak_Synchronize():
        raise ChildProcessError(f"eSpeak NG does not say {text!r}")
    return np.concatenate(heard), rate
