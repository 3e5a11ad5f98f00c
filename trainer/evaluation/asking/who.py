"""Who is asked, of the settings: loaded where it is asked. And the ranks that a launcher has started."""

from pathlib import Path

import torch
import xxhash

from coat.trainer.evaluation.asking.ask import Asker
from coat.trainer.evaluation.asking.chat import Servers
from coat.trainer.evaluation.asking.server import ServerAsker
from coat.trainer.evaluation.asking.student import StudentAsker, base_student, subject_of
from coat.trainer.evaluation.evaluation import Ranks
from coat.trainer.evaluation.settings import EvaluationSettings
from coat.trainer.generation.run_student import find_student, load_run
from coat.trainer.ranks import launched_accelerator
from coat.trainer.records.checkpoint_files import parse_step


def make_asker(settings: EvaluationSettings, device: str | None = None, servers: Servers | None = None) -> Asker:
    """InputError, RunError: there is no such run, student or server."""
    subject, source = settings.subject, settings.subject.sources[0]
    if subject.kind == "server":
        client = (servers or Servers()).asked(source, subject.model, settings.batch_size)
        return ServerAsker(client, settings.batch_size, subject.audio_rate)
    if subject.kind == "student":
        trained = base_student(source, dtype_here(subject.dtype), device)
        return StudentAsker(trained, subject_of(trained, "student", source))
    step = parse_step(subject.step)
    saved = find_student(source, step)
    trained = load_run(source, device, step)
    found = subject_of(trained, "run", source, trained.step)
    return StudentAsker(trained, found.model_copy(update={"digest": digest_of(saved.path, found.digest)}))


def dtype_here(wanted: str) -> str:
    """auto: bf16 on a GPU that has it, else float32."""
    if wanted != "auto":
        return wanted
    return "bfloat16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "float32"


def digest_of(folder: Path, base: str) -> str:
    """Of the weights that a run has trained, which lie in the folder, and of those that they belong to."""
    digest = xxhash.xxh3_128(base.encode())
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as f:
            while block := f.read(1 << 24):
                digest.update(block)
    return digest.hexdigest()


def launched_ranks() -> tuple[Ranks, str | None]:
    """As `accelerate launch` or torchrun has it, and this rank's device; alone where neither has."""
    if (accelerator := launched_accelerator()) is None:
        return Ranks(), None
    ranks = Ranks(accelerator.process_index, accelerator.num_processes, accelerator.wait_for_everyone)
    return ranks, str(accelerator.device)
