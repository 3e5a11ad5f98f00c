"""Hidden states are those that transformers gives by itself, and what is replaced is what later layers see."""

from pathlib import Path

import pytest
import torch

from coat.analysis.layers import decoder_layers, hooked, replaced, states_at
from coat.trainer.config.sections import HeadsConfig, ThinkingConfig
from coat.trainer.model.coat_model import CoatModel
from coat.trainer.model.heads import DistillHeads
from coat.trainer.model.thinking import ThinkingBlock
from coat.trainer.students.registry import load_student
from tests.trainer.helpers import toy_sample

Inputs = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def model(student_dir: Path) -> CoatModel:
    student = load_student(str(student_dir))
    block = ThinkingBlock.add_to(student, ThinkingConfig(count=4))
    return CoatModel(student, block, DistillHeads(HeadsConfig(), student.hidden_size, {})).eval()


@pytest.fixture(scope="module")
def inputs(model: CoatModel) -> Inputs:
    """Two clips in one batch; the positions of the block are equal in both."""
    prefixes = [model.student.prefix(toy_sample(i)["audio"], "High or low?") for i in range(2)]
    ids = torch.tensor([model.block.insert(prefix, 1.0)[0] for prefix in prefixes])
    features = model.student.stack_features([prefix.features for prefix in prefixes])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **features}


@pytest.fixture(scope="module")
def block_BP(model: CoatModel, inputs: Inputs) -> torch.Tensor:
    return torch.isin(inputs["input_ids"], torch.tensor(model.block.ids_K)).nonzero()[:, 1].view(2, -1)


def test_states_are_those_of_transformers(model: CoatModel, inputs: Inputs, block_BP: torch.Tensor) -> None:
    with torch.no_grad():
        expected = model.student.model.model(**inputs, output_hidden_states=True).hidden_states
    found = states_at(model, inputs, block_BP, range(len(expected)))
    assert set(found) == set(range(len(decoder_layers(model.student)) + 1))
    for layer, states_BPD in found.items():
        torch.testing.assert_close(states_BPD, expected[layer][torch.arange(2)[:, None], block_BP])
    with pytest.raises(ValueError, match="layer 9: this student has layers 0 to"):
        states_at(model, inputs, block_BP, [9])


def test_what_is_replaced_is_what_the_next_layers_see(model: CoatModel, inputs: Inputs, block_BP: torch.Tensor) -> None:
    layers = range(len(decoder_layers(model.student)))
    own = states_at(model, inputs, block_BP, layers)
    with replaced(model.student, block_BP, own), torch.no_grad():
        same, _ = model.states(inputs)
    with torch.no_grad():
        untouched, _ = model.states(inputs)
    torch.testing.assert_close(same, untouched)
    other = {layer: torch.full_like(states_BPD, 0.5) for layer, states_BPD in own.items()}
    seen: dict[int, torch.Tensor] = {}
    with replaced(model.student, block_BP, other), hooked(model.student, lambda n, s: seen.update({n: s.clone()})):
        changed, _ = model.states(inputs)
    before = int(block_BP.min())
    rows = torch.arange(2)[:, None]
    for layer in layers:
        assert (seen[layer][rows, block_BP] == 0.5).all()
        assert torch.equal(seen[layer][:, :before], own_input(model, inputs, layer)[:, :before])
    assert not torch.allclose(changed[:, -1], untouched[:, -1])
    assert torch.equal(changed[:, :before], untouched[:, :before])


def own_input(model: CoatModel, inputs: Inputs, layer: int) -> torch.Tensor:
    everywhere = torch.arange(inputs["input_ids"].shape[1]).expand(2, -1)
    return states_at(model, inputs, everywhere, [layer])[layer]


def test_passes_of_single_tokens_are_left_alone(model: CoatModel, inputs: Inputs, block_BP: torch.Tensor) -> None:
    """Generation with a cache: the prefill holds the positions, what follows does not."""
    own = states_at(model, inputs, block_BP, [0])
    options = {"do_sample": False, "max_new_tokens": 4, "min_new_tokens": 4}
    with replaced(model.student, block_BP, {0: torch.zeros_like(own[0])}):
        cached = model.student.model.generate(**inputs, **options)
        whole = inputs["input_ids"]
        for _ in range(4):
            mask = torch.ones_like(whole)
            logits = model.student.model(**{**inputs, "input_ids": whole, "attention_mask": mask}).logits
            whole = torch.cat([whole, logits[:, -1:].argmax(-1)], 1)
    assert torch.equal(cached, whole)
