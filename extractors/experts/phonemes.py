"""Phonemes: which phoneme (or letter) sounds, by a CTC model of the wav2vec 2.0 family.

Source   wav2vec2-lv-60-espeak-cv-ft (Xu, Baevski, Auli 2021, arXiv 2109.11680): 392 symbols of eSpeak's IPA over many
         languages. Any other CTC checkpoint through transformers AutoModelForCTC (wav2vec2, hubert, wavlm, unispeech,
         data2vec-audio), of phonemes or of letters
Licence  Apache-2.0 (the default's weights), Apache-2.0 (transformers)
Rate     16 kHz / 320 = 50 frames a second, centred at 320 * i + 199.5 samples, all frames kept: as in wav2vec2.py,
         which also says how audio is normalised, padded and heard in windows (40 s, not equal to a single pass)
Channels one per entry of vocab.json (and added_tokens.json), by its id; `<pad>` is CTC's blank. dim = vocab_size
Values   softmax over all of them, blank included: a distribution

Limits: CTC is peaky. Most frames are nearly all blank; a phoneme shows in one frame or two, somewhere within the time
it lasts, and not always in the middle of it. Music and noise give blanks.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from coat.extractors.checkpoints.checkpoint import find_tensor, read_json_object
from coat.extractors.expert import Card
from coat.extractors.experts.wav2vec2 import Wav2Vec2, no_adapter
from coat.extractors.trial import logit
from coat.manifests.errors import InputError

if TYPE_CHECKING:
    import torch

VOCABULARY, ADDED = "vocab.json", "added_tokens.json"


class Phonemes(Wav2Vec2):
    name = "phonemes"
    card = Card(
        family="speech",
        kind="distribution",
        what="posteriors of phonemes and blank",
        source="wav2vec 2.0 CTC (arXiv 2109.11680)",
        licence="Apache-2.0",
        rate_hz=50.0,
        checkpoint="facebook/wav2vec2-lv-60-espeak-cv-ft",
    )
    takes = ("checkpoint", "precision", "compile")
    trial = replace(Wav2Vec2.trial, view=logit)
    model_class = "AutoModelForCTC"
    beside = (VOCABULARY, ADDED)

    def frame(self) -> dict[str, Any]:
        no_adapter(self.files)
        if find_tensor(self.files, "lm_head.weight") is None:
            raise InputError(f"{self.files.where}: no CTC head (lm_head.weight) in it; expected a *ForCTC checkpoint")
        size, where = self.files.get("vocab_size"), f"{self.files.where}: {VOCABULARY}"
        ids = read_json_object(self.files.folder / VOCABULARY, self.files.where)
        if (added := self.files.folder / ADDED).is_file():
            ids |= read_json_object(added, self.files.where)
        if any(not isinstance(i, int) for i in ids.values()):
            raise InputError(f"{where} gives no id to each symbol: one vocabulary is expected, not one per language")
        names = {i: symbol for symbol, i in ids.items()}
        if sorted(names) != [*range(size)] or len(ids) != size:
            raise InputError(f"{where} has {len(ids)} symbols with {len(names)} ids; config.json has vocab_size {size}")
        return {"dim": size, "channels": tuple(names[i] for i in range(size))}

    def head(self, states_BND: "torch.Tensor") -> "torch.Tensor":
        return self.whole.lm_head(states_BND).float().softmax(dim=-1)
