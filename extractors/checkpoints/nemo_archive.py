"""`.nemo` files of NVIDIA NeMo: a tar with model_config.yaml and model_weights.ckpt, read in place.

Nothing of it is run: parts of known kinds are built by the experts from their arguments, never a class that a file
names; no tokenizer; weights with `weights_only=True` (NeMo's own restore_from does more). Nothing here imports NeMo.
"""

import functools
import gzip
import io
import pickle
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from coat.extractors.checkpoints.checkpoint import checkpoint_folder
from coat.manifests.errors import InputError, one_line

MEMBERS = ("model_config.yaml", "model_weights.ckpt")
WRAPPED = "encoder.pre_encode.pre_encode."  # NEST with mask_position post_conv keeps its subsampling in a wrapper


@dataclass(frozen=True)
class NemoArchive:
    """One `.nemo` file; `where` is what errors call it."""

    where: str  # --expert NAME: CHECKPOINT
    path: Path
    config: Any  # an OmegaConf DictConfig
    digest: str
    finite: Mapping[str, bool]  # every weight by name, and whether all of it is

    def section(self, *names: str) -> Any:
        """A resolved part of model_config.yaml; None where there is none."""
        from omegaconf import DictConfig, OmegaConf
        from omegaconf.errors import OmegaConfBaseException

        found: Any = self.config
        try:
            for name in names:
                found = found.get(name) if isinstance(found, DictConfig) else None
            return OmegaConf.to_container(found, resolve=True) if OmegaConf.is_config(found) else found
        except OmegaConfBaseException as e:
            raise InputError(f"{self.where}: {'.'.join(names)} of model_config.yaml cannot be read ({e!r})") from e

    def component(self, *names: str, kinds: Sequence[str]) -> tuple[str, dict[str, Any]]:
        """The kind of a part of the model and the arguments it is made with; InputError where it is another kind."""
        found = self.section(*names)
        if not isinstance(found, dict):
            raise InputError(f"{self.where}: model_config.yaml describes no {'.'.join(names)}")
        kind = str(found.pop("_target_", None)).rsplit(".", 1)[-1]
        if kind not in kinds:
            raise InputError(f"{self.where}: its {'.'.join(names)} is a {kind}; expected {' or '.join(kinds)}")
        return kind, found

    def require(self, *names: str) -> None:
        """InputError where one of these weights is missing, or is NaN or infinite anywhere."""
        if missing := sorted(set(names) - self.finite.keys()):
            raise InputError(f"{self.where}: {len(missing)} weights are missing, the first is {missing[0]}")
        if bad := next((name for name in names if not self.finite[name]), None):
            raise InputError(f"{self.where}: holds NaN or infinite values in {bad}; get the checkpoint anew")

    def weights(self) -> dict[str, Any]:
        with tarfile.open(self.path) as archive:
            return read_weights(archive, archive_members(archive, self.where)[1], self.where)

    def load_into(self, module: Any, prefix: str, found: Mapping[str, Any]) -> None:
        """The weights of a module, whose names begin with `prefix` in the file. InputError where they do not fit."""
        own = module.state_dict()
        if missing := sorted(key for key in own if f"{prefix}{key}" not in found):
            raise InputError(f"{self.where}: {len(missing)} weights are missing, the first is {prefix}{missing[0]}")
        try:
            module.load_state_dict({key: found[f"{prefix}{key}"] for key in own})
        except RuntimeError as e:
            raise InputError(f"{self.where}: the weights do not fit ({one_line(e, 200)})") from e


def open_nemo(expert: str, name: str) -> NemoArchive:
    """The one `.nemo` file of a path, a folder or a hub id. InputError says what is wrong with it."""
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    where = f"--expert {expert}: {name}"
    if Path(name).is_file():
        path = Path(name)
    elif name.endswith(".nemo"):
        raise InputError(f"{where}: no such file")
    else:
        found = sorted(checkpoint_folder(expert, name, ["*.nemo"]).glob("*.nemo"))
        if len(found) != 1:
            raise InputError(f"{where}: {len(found)} .nemo files there; expected one")
        path = found[0]
    stat = path.stat()
    text, digest, finite = read_archive(path, where, stat.st_size, stat.st_mtime_ns)
    try:
        config = OmegaConf.create(yaml.safe_load(text))
    except (yaml.YAMLError, OmegaConfBaseException, ValueError) as e:
        raise InputError(f"{where}: model_config.yaml cannot be read ({e!r})") from e
    return NemoArchive(where, path, config, digest, finite)


@functools.lru_cache(maxsize=16)  # one process makes an expert more than once; size and mtime tell a rewritten file
def read_archive(path: Path, where: str, size: int, mtime_ns: int) -> tuple[bytes, str, Mapping[str, bool]]:
    """model_config.yaml, a digest of it and the weights as they lie in the tar, and which weights are finite."""
    try:
        with tarfile.open(path) as archive:
            both, digests = archive_members(archive, where), []
            for member in both:
                stream: Any = archive.extractfile(member)  # a plain file, as `members` has seen: not None
                h = xxhash.xxh3_128()
                while block := stream.read(1 << 23):
                    h.update(block)
                digests.append(h.hexdigest())
            config: Any = archive.extractfile(both[0])
            text = config.read()
            weights = read_weights(archive, both[1], where)
    except (tarfile.TarError, OSError, EOFError) as e:
        raise InputError(f"{where}: not a .nemo file, which is a tar ({one_line(e, 80)})") from e
    finite = {key: not value.is_floating_point() or bool(value.isfinite().all()) for key, value in weights.items()}
    return text, "xxh3:" + xxhash.xxh3_128_hexdigest("".join(digests).encode()), finite


def read_weights(archive: tarfile.TarFile, member: tarfile.TarInfo, where: str) -> dict[str, Any]:
    """The tensors of a state dict by name."""
    import torch

    stream: Any = archive.extractfile(member)
    if isinstance(archive.fileobj, gzip.GzipFile):  # which unpacks from its start at each step back
        stream = io.BytesIO(stream.read())
    try:
        found = torch.load(stream, map_location="cpu", weights_only=True)
        return {key.replace(WRAPPED, "encoder.pre_encode."): v for key, v in found.items() if torch.is_tensor(v)}
    except (RuntimeError, EOFError, pickle.UnpicklingError, LookupError, ValueError, TypeError, AttributeError) as e:
        reason = one_line(e, 200)  # of a damaged pickle it can be any of these
        raise InputError(f"{where}: model_weights.ckpt cannot be loaded ({reason})") from e


def archive_members(archive: tarfile.TarFile, where: str) -> list[tarfile.TarInfo]:
    """Configuration and weights; read in place, never unpacked."""
    plain = {m.name.removeprefix("./"): m for m in archive.getmembers() if m.isfile()}
    if missing := [name for name in MEMBERS if name not in plain]:
        raise InputError(f"{where}: no {' or '.join(missing)} in it; expected a .nemo file of a whole model")
    return [plain[name] for name in MEMBERS]
