"""What single answers cost: times add up, tokens are those of the prompts, and thinking in text is decoded."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook
from transformers import Qwen2AudioForConditionalGeneration

from coat.trainer import train
from coat.trainer.evaluation.asking import student as asking
from coat.trainer.evaluation.asking.ask import Timed
from coat.trainer.evaluation.asking.who import make_asker
from coat.trainer.evaluation.checks import cost
from coat.trainer.evaluation.checks.cost import Cost, summary
from coat.trainer.evaluation.evaluation import IN_TEXT, evaluate
from coat.trainer.students.chat import Chat
from tests.trainer.evaluation.helpers import settings_of, write_questions
from tests.trainer.helpers import toy_config


@pytest.fixture
def second_per_forward(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A clock that only a forward of the whole student moves, by a second: so a busy machine changes no figure."""
    seconds = 0.0

    def tick(module: nn.Module, _: object) -> None:
        nonlocal seconds
        seconds += isinstance(module, Qwen2AudioForConditionalGeneration)

    for module in (asking, cost):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: seconds))
    hook = register_module_forward_pre_hook(tick)
    yield
    hook.remove()


@pytest.mark.usefixtures("second_per_forward")
def test_a_run_its_base_and_its_base_that_thinks_in_text(
    student_dir: Path, shards_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(toy_config(student_dir, shards_dir, tmp_path / "run", lora={"full": False}))
    monkeypatch.setattr(Chat, "stop_ids", [1])  # never said: all answers are as long as they may be
    data = write_questions(tmp_path / "data", rows=3)
    settings = settings_of(data, tmp_path / "run", "run", guard=0, cost=3, cot=16)
    assert evaluate(settings, tmp_path / "e", make_asker)
    before = (tmp_path / "e" / "cost.json").read_bytes()
    found = Cost.read(tmp_path / "e")
    assert found
    assert set(found.modes) == {"run", "student", IN_TEXT}
    run, base, in_text = (found.modes[mode] for mode in ("run", "student", IN_TEXT))
    assert (run.rows, run.block_tokens, base.block_tokens, in_text.block_tokens) == (3, 6, 0, 0)
    assert (run.answer_tokens, base.answer_tokens, in_text.answer_tokens) == (4, 4, 16)
    assert run.prompt_tokens == base.prompt_tokens
    assert (in_text.prompt_tokens or 0) > (base.prompt_tokens or 0)
    for mode in found.modes.values():  # one prefill, the block in it, then one forward a token
        assert mode.first_token
        assert (mode.first_token.p50, mode.first_token.p95) == (1, 1)
        assert mode.total.p50 == mode.total.p95 == mode.answer_tokens
        assert mode.tokens_per_s == 1
    assert evaluate(settings, tmp_path / "e", make_asker)  # and what is measured is not measured again
    assert (tmp_path / "e" / "cost.json").read_bytes() == before


def test_figures_of_known_times() -> None:
    timed = [
        Timed(seconds=1.0 + n, first_token=0.5, prompt_tokens=10 + n, block_tokens=0, answer_tokens=5 + 4 * n)
        for n in range(3)
    ]
    found = summary(timed)
    assert found.first_token
    assert (found.first_token.p50, found.total.p50, found.total.p95) == (0.5, 2.0, pytest.approx(2.9))
    assert found.tokens_per_s == pytest.approx((4 + 8 + 12) / (0.5 + 1.5 + 2.5), abs=1e-3)
    assert (found.prompt_tokens, found.answer_tokens) == (11, 9)
    assert summary([Timed(seconds=1.0)]).first_token is None
