"""What is on disk: manifests and audio in, and the description of targets and shards."""

from coat.manifests.audio.clip import AudioError, AudioInfo, Clip
from coat.manifests.audio.file import decode, probe
from coat.manifests.corpus.manifest import Manifest
from coat.manifests.corpus.utterance import Utterance
from coat.manifests.errors import BrokenShard, InputError, ManifestError, Problem, RunError
from coat.manifests.shards.index import ShardIndex
from coat.manifests.shards.info import ExpertInfo, ShardInfo
from coat.manifests.targets.spec import TargetSpec

__all__ = [
    "AudioError",
    "AudioInfo",
    "BrokenShard",
    "Clip",
    "ExpertInfo",
    "InputError",
    "Manifest",
    "ManifestError",
    "Problem",
    "RunError",
    "ShardIndex",
    "ShardInfo",
    "TargetSpec",
    "Utterance",
    "decode",
    "probe",
]
