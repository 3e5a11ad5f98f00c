"""What is on disk: manifests and audio in, and the description of targets and shards."""

from coat.manifests.audio import AudioError, AudioInfo, Clip, decode, probe
from coat.manifests.errors import BrokenShard, InputError, ManifestError, Problem, RunError
from coat.manifests.manifest import Manifest
from coat.manifests.shard_index import ExpertInfo, ShardIndex, ShardInfo
from coat.manifests.spec import TargetSpec
from coat.manifests.utterance import Utterance

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
