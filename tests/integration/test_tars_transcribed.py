"""Digits in tars are transcribed from stored Whisper frames as from the files. COAT_REAL_DIR, COAT_WHISPER_DIR."""

import re
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, WhisperFeatureExtractor, WhisperForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from coat.manifests.audio.file import decode
from coat.manifests.corpus.manifest import Manifest
from coat.pipeline.store.target_store import TargetStore
from tests.integration.helpers import coat, folder

CLIPS = 12
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@pytest.mark.real
def test_digits_are_transcribed_from_frames_out_of_tars(tmp_path: Path) -> None:
    tar = folder("COAT_REAL_DIR").resolve().parent / "data/fsdd/fsdd-0001.tar"
    checkpoint = folder("COAT_WHISPER_DIR")
    if not tar.is_file():
        pytest.skip(f"{tar} is not there")
    coat("manifest", "import", tar, tmp_path / "all.jsonl")
    rows = list(Manifest.read(str(tmp_path / "all.jsonl")))[:: 750 // CLIPS][:CLIPS]
    Manifest(rows).write(str(tmp_path / "tar.jsonl"))
    with tarfile.open(tar) as opened:
        opened.extractall(tmp_path / "files", filter="data")
    coat("manifest", "import", tmp_path / "files", tmp_path / "files.jsonl")
    files = {u.id: u for u in Manifest.read(str(tmp_path / "files.jsonl"))}
    Manifest([files[f"{u.id}"] for u in rows]).write(str(tmp_path / "chosen.jsonl"))
    heard = {}
    for name, manifest in (("tar", tmp_path / "tar.jsonl"), ("files", tmp_path / "chosen.jsonl")):
        where = ["--manifest", manifest, "--store", tmp_path / name, "--checkpoint", checkpoint]
        coat("extract", "--expert", "whisper", *where)
        targets = TargetStore(str(tmp_path / name)).target_set("whisper")
        heard[name] = [targets.read(u).frames for u in Manifest.read(str(manifest))]
    for ours, theirs in zip(heard["tar"], heard["files"], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=5e-3, atol=5e-3)  # in other batches
    said = transcribe(heard["tar"], checkpoint)
    assert said == transcribe(heard["files"], checkpoint)
    plain = transcribe([decode(u.audio).at(16000) for u in rows], checkpoint)  # Whisper by itself, of the sound
    right = {name: sum(digit_of(t) == u.extra["digit"] for t, u in zip(texts, rows, strict=True)) for name, texts in
             (("stored frames", said), ("sound", plain))}  # fmt: skip
    print(f"digits right, of {CLIPS}: {right}; {said}, {plain}")
    assert np.mean(np.equal(said, plain)) > 0.7
    assert abs(right["stored frames"] - right["sound"]) <= 2


def transcribe(heard: list[np.ndarray], checkpoint: Path) -> list[str]:
    """By Whisper's own decoder: of sound, `[T]`, or of stored frames, `[N, D]`, with silence behind them."""
    model: Any = WhisperForConditionalGeneration.from_pretrained(checkpoint).eval()
    tokens: Any = AutoTokenizer.from_pretrained(checkpoint)
    texts: list[str] = []
    features = WhisperFeatureExtractor.from_pretrained(checkpoint)

    def encoded(samples_T: np.ndarray) -> torch.Tensor:
        inputs = features(samples_T, sampling_rate=16000, return_tensors="pt").input_features
        return model.model.encoder(inputs).last_hidden_state

    with torch.inference_mode():
        silence_1ND = encoded(np.zeros(16000, np.float32))
        for one in heard:
            stored_1ND = encoded(one) if one.ndim == 1 else torch.from_numpy(one.astype(np.float32))[None]
            whole_1ND = torch.cat([stored_1ND, silence_1ND[:, stored_1ND.shape[1] :]], dim=1)
            states = BaseModelOutput(last_hidden_state=whole_1ND)
            ids = model.generate(encoder_outputs=states, max_new_tokens=8, max_length=None)[0].tolist()
            texts.append(tokens.decode(ids, skip_special_tokens=True).strip().lower())
    return texts


def digit_of(text: str) -> int | None:
    words = re.findall(r"[a-z]+|\d", text)
    found = [int(w) if w.isdigit() else NAMES.index(w) for w in words if w.isdigit() or w in NAMES]
    return found[0] if found else None
