"""eSpeak NG, as the package espeakng-loader brings it: its C API (speak_lib.h), of which a few functions are called."""

import ctypes
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

RETRIEVAL = 1  # AUDIO_OUTPUT_RETRIEVAL: samples go to the callback
RATE, PITCH = 1, 3  # espeak_PARAMETER
UTF8 = 1  # espeakCHARS_UTF8
CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class Speaker:
    """One a process: the library has one voice at a time. SystemExit where it does not start."""

    def __init__(self) -> None:
        import espeakng_loader

        self.library = ctypes.CDLL(espeakng_loader.get_library_path())
        self.rate = self.library.espeak_Initialize(RETRIEVAL, 0, espeakng_loader.get_data_path().encode(), 0)
        if self.rate <= 0:
            raise SystemExit("eSpeak NG does not start; install the package espeakng-loader anew")
        self.heard: list[NDArray[np.int16]] = []
        self.callback = CALLBACK(self.hear)  # kept: the library calls it
        self.library.espeak_SetSynthCallback(self.callback)

    def hear(self, samples: Any, count: int, _: int | None) -> int:
        if samples and count > 0:
            self.heard.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0  # go on

    def say(self, text: str, voice: str, words_a_minute: int, pitch: int) -> NDArray[np.int16]:
        """Mono, at `rate` samples a second; `pitch` from 0 to 99, 50 the voice's own."""
        if self.library.espeak_SetVoiceByName(voice.encode()):
            raise SystemExit(f"eSpeak NG has no voice {voice}")
        self.library.espeak_SetParameter(RATE, words_a_minute, 0)
        self.library.espeak_SetParameter(PITCH, pitch, 0)
        self.heard.clear()
        said = text.encode() + b"\0"
        if self.library.espeak_Synth(said, len(said), 0, 0, 0, UTF8, None, None) or self.library.espeak_Synchronize():
            raise SystemExit(f"eSpeak NG does not say {text!r}")
        return np.concatenate(self.heard)


@cache
def speaker() -> Speaker:
    return Speaker()
