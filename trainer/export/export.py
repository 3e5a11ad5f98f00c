"""Export a run so that whoever serves it needs nothing of coat: the block is in the chat template and the tokenizer.

OUT/README.md               the model card, with the code that loads it
OUT/adapter_config.json, adapter_model.safetensors   the adapter and the rows of the think tokens, or
OUT/config.json, model.safetensors                   the whole model, the adapter merged into it
OUT/generation_config.json  greedy, ends with a turn, never says a think token
OUT/thinking.json           the block's text and ids, and a prompt with it, for prompts that go past the chat template
OUT/chat_template.jinja, tokenizer.json, processor_config.json, ...
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from coat.manifests import InputError, RunError, storage
from coat.trainer.export.layout import write_model
from coat.trainer.export.merging import add_whole_modules, merged_model
from coat.trainer.export.model_card import CardResults, hub_id, model_card
from coat.trainer.export.processor_files import write_processor
from coat.trainer.export.targets import Target, check_target
from coat.trainer.export.template import check_template, prompt_pieces, trial_ids, write_template
from coat.trainer.generation.generate import Trained, generation_config
from coat.trainer.generation.run_student import load_run, save_adapter
from coat.trainer.model.thinking import ThinkingBlock
from coat.trainer.records.checkpoint_files import Step


@dataclass(frozen=True)
class Export:
    path: Path
    kind: str  # adapter or model
    base: str | None  # hub id of the base model; None: not known
    bytes: int
    positions: int  # of the block, begin and end not counted
    step: int  # of the run
    target: Target | None  # whom it is for; None: whoever reads what this transformers writes


def export_run(
    run: str | Path,
    out: str | Path,
    *,
    step: Step = None,
    merged: bool = False,
    target: Target | None = None,
    positions: int | None = None,
    base: str | None = None,
    results: CardResults | None = None,
) -> Export:
    """Write the student of a run to `out`: its adapter, or (`merged`, `lora.full`) the whole model.

    `step` is that of a checkpoint, or "best"; None: the finished student, or else the newest checkpoint. `target`: the
    server that is to read it, whose files and limits are then heeded (see targets.py).

    `positions` is how many think positions the template has, where the run's follow the length of the audio
    (`thinking.rate_hz`); `base` the hub id of the base model, where the run has a folder of this machine; `results`
    what its card says of evaluations.
    InputError: `out` is not empty, or an option does not fit, or `target` cannot serve the student. RunError: the
    checkpoint is not whole, or the export cannot be written.
    """
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: not an empty folder; choose another --out")
    if base is not None and hub_id(base) is None:
        raise InputError(f"--base {base}: not the id of a model on the hub; expected owner/name")
    trained = load_run(run, device="cpu", step=step)
    block = fixed_block(trained.block, positions)
    fixed = Trained(trained.student, block, trained.config, trained.step)
    kind = "model" if merged or trained.student.peft_model is None else "adapter"
    if target is not None:
        check_target(target, trained, kind == "model")
    base = base or hub_id(trained.config.student.path)
    expected = trial_ids(fixed)  # before its template is changed
    with built_beside(folder) as partial:
        write(fixed, trained.block, partial, kind, base, target)
        check_template(fixed.student, expected, partial)
        card = model_card(fixed, Path(run), kind, base, results, target)
        (partial / "README.md").write_text(card, encoding="utf-8")
        size = sum(p.stat().st_size for p in partial.rglob("*") if p.is_file())
    return Export(folder, kind, base, size, len(block.ids_K), trained.step or 0, target)


@contextmanager
def built_beside(folder: Path) -> Iterator[Path]:
    """A new folder that takes the place of `folder` when all went well. RunError: it cannot be written."""
    partial = folder.parent / f".{folder.name}.partial"
    try:
        shutil.rmtree(partial, ignore_errors=True)  # of an export that was killed
        partial.mkdir(parents=True)
        yield partial
        os.replace(partial, folder)  # onto an empty folder, or nothing
    except OSError as e:
        raise RunError(f"{folder}: cannot be written ({e.strerror or e}); see to that, and export again") from e
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def fixed_block(block: ThinkingBlock, positions: int | None) -> ThinkingBlock:
    """The block as a template can hold it: of one length."""
    most = len(block.ids_K)
    if block.config.rate_hz is None:
        if positions not in (None, most):
            raise InputError(f"--positions {positions}: this run has {most} think positions, and was trained with them")
        return block
    if positions is None or not 1 <= positions <= most:
        raise InputError(
            f"thinking.rate_hz {block.config.rate_hz:g}: the block follows the length of the audio, which a chat "
            f"template cannot; give --positions N (1 to {most}): right for audio of N / {block.config.rate_hz:g} s"
        )
    config = block.config.model_copy(update={"rate_hz": None, "count": positions})
    return replace(block, config=config, ids_K=block.ids_K[:positions])


def write(
    trained: Trained, whole: ThinkingBlock, folder: Path, kind: str, base: str | None, target: Target | None
) -> None:
    """All but the card. The student's template is changed. `whole`: the block with all its tokens, of which none is
    ever said.
    """
    student = trained.student
    generation = generation_config(student, whole)
    if kind == "adapter":
        save_adapter(student, folder)
        changed = {"base_model_name_or_path": base, **add_whole_modules(student, folder)}
        settings = storage.read_json(str(folder / "adapter_config.json"))  # peft writes where the base was loaded from
        storage.write_bytes(str(folder / "adapter_config.json"), storage.to_json({**settings, **changed}))
    else:
        model = merged_model(trained, whole)
        model.generation_config = generation
        if target is None:
            model.save_pretrained(folder)
        else:
            write_model(student, model, folder, trained.config.student.path)
    generation.save_pretrained(folder)
    if target in ("vllm", "sglang"):
        answer_greedily(folder)
    write_template(student, trained.block)
    if target is None:
        student.processor.save_pretrained(folder)
    else:
        write_processor(student, folder)
    storage.write_bytes(str(folder / "thinking.json"), storage.to_json(prompt_pieces(student, trained.block)))


def answer_greedily(folder: Path) -> None:
    """These servers know no `do_sample`: without a temperature in the request or here they sample."""
    file = str(folder / "generation_config.json")
    storage.write_bytes(file, storage.to_json({**storage.read_json(file), "temperature": 0.0}))
