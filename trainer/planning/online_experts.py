"""What five experts would take of a GPU if the trainer ran them beside the student: what cached targets save.

A published set of the method's five families. Parameters as published, or counted from the published config.
"""

from dataclasses import dataclass
from typing import Literal

from coat.manifests import ExpertInfo, TargetSpec

SAMPLE_RATE = 16000


@dataclass(frozen=True, kw_only=True)
class OnlineExpert:
    name: str
    family: Literal["reconstruction", "speech", "events", "affect", "pitch"]
    kind: Literal["representation", "probabilities", "scalars", "pitch"]
    parameters: int
    rate_hz: float  # of its frames, or tokens, inside
    hidden: int  # of its layers
    mlp: int  # their widest activation
    front: int  # values a second of audio of its widest convolution
    outputs: int  # values of a target's frame
    source: str

    def weight_bytes(self, itemsize: int) -> int:
        return self.parameters * itemsize

    def activation_bytes(self, batch: int, seconds: float, itemsize: int) -> int:
        """At most at once, without gradients: a convolution's input and output, or a layer's states and MLP."""
        layers = self.rate_hz * (2 * self.hidden + 2 * self.mlp)
        return round(batch * seconds * max(layers, 2 * self.front) * itemsize)

    def info(self) -> ExpertInfo:
        """As an index of shards would have it: what a head for it is built from."""
        spec = TargetSpec(
            expert=self.name, version=1, family=self.family, kind=self.kind, dim=self.outputs, rate_hz=self.rate_hz,
            start_s=0.0, sample_rate=SAMPLE_RATE, min_samples=1,
        )  # fmt: skip
        return ExpertInfo(spec=spec, samples=1, frames=1, mean=(0.0,) * self.outputs, std=(1.0,) * self.outputs)


ONLINE_EXPERTS = (
    OnlineExpert(
        name="whisper-large-v3 encoder", family="reconstruction", kind="representation", parameters=636_968_960,
        rate_hz=50, hidden=1280, mlp=5120, front=1280 * 100, outputs=1280,
        source="openai/whisper-large-v3, config.json: counted",
    ),
    OnlineExpert(
        name="wav2vec2-large", family="speech", kind="representation", parameters=317_000_000,
        rate_hz=50, hidden=1024, mlp=4096, front=512 * SAMPLE_RATE // 5, outputs=1024,
        source="arXiv 2006.11477, LARGE; MERT-v1-330M is as large",
    ),
    OnlineExpert(
        name="AST", family="events", kind="probabilities", parameters=87_000_000,
        rate_hz=1214 / 10.24, hidden=768, mlp=3072, front=0, outputs=527,
        source="arXiv 2104.01778",
    ),
    OnlineExpert(
        name="wav2vec2-large emotion", family="affect", kind="scalars", parameters=165_000_000,
        rate_hz=50, hidden=1024, mlp=4096, front=512 * SAMPLE_RATE // 5, outputs=3,
        source="audeering/wav2vec2-large-robust-12-ft-emotion-msp-dim (arXiv 2203.07378): 12 layers",
    ),
    OnlineExpert(
        name="SwiftF0", family="pitch", kind="pitch", parameters=95_842,
        rate_hz=62.5, hidden=132, mlp=132, front=0, outputs=3,
        source="arXiv 2508.18440; CREPE has 22 million",
    ),
)  # fmt: skip
