"""What is computed otherwise than peft has it gives what peft gives, for less."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.tuners.trainable_tokens import TrainableTokensLayer
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Qwen2Config, Qwen2ForCausalLM

from coat.trainer.config.train_config import TrainConfig
from coat.trainer.model.build import build_model
from coat.trainer.model.coat_model import CoatModel
from coat.trainer.model.peft_layers import OverlaidRows, lighten
from coat.trainer.students.registry import load_student
from tests.trainer.helpers import toy_config

VOCABULARY, DIM, NEW_IDS = 5000, 16, [4990, 4993, 4991]
IDS_BT = torch.tensor([[1, 4993, 7, 4991, 4993, 2], [4990, 4990, 3, 4994, 4999, 1]])


def trained_rows(tied: bool) -> nn.Module:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY, hidden_size=DIM, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, tie_word_embeddings=tied,
    )  # fmt: skip
    rows = {"model.embed_tokens": NEW_IDS}
    lora = LoraConfig(r=2, target_modules=["q_proj"], trainable_token_indices=rows)
    model = get_peft_model(Qwen2ForCausalLM(config), lora)
    with torch.no_grad():  # rows that are no longer those of the embedding
        for name, parameter in model.named_parameters():
            if "trainable_tokens_delta" in name:
                parameter += torch.randn_like(parameter)
    return model


def result_and_gradients(model: nn.Module) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    logits_BTV = model(input_ids=IDS_BT).logits
    (logits_BTV * torch.linspace(-1, 1, VOCABULARY)).sum().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return logits_BTV.detach(), gradients


@pytest.mark.parametrize("tied", [False, True])
def test_rows_have_the_outputs_and_gradients_of_a_changed_copy_of_all_rows(tied: bool) -> None:
    model = trained_rows(tied)
    expected, gradients = result_and_gradients(model)
    lighten(model)
    assert sum(isinstance(m, OverlaidRows) for m in model.modules()) == 1 + tied
    found, found_gradients = result_and_gradients(model)
    assert torch.allclose(found, expected, atol=1e-6)
    assert found_gradients.keys() == gradients.keys()
    (rows,) = (name for name in gradients if "trainable_tokens" in name)
    assert gradients[rows].shape == (len(NEW_IDS), DIM)
    for name, gradient in gradients.items():
        assert torch.allclose(found_gradients[name], gradient, rtol=1e-5, atol=1e-6), name


def test_rows_can_be_turned_off_merged_and_read(tmp_path: Path) -> None:
    model = trained_rows(tied=True)
    with model.disable_adapter():  # type: ignore[operator]
        without = model(input_ids=IDS_BT).logits
    expected = model(input_ids=IDS_BT).logits
    lighten(model)
    with model.disable_adapter():  # type: ignore[operator]
        assert torch.equal(model(input_ids=IDS_BT).logits, without)
    model.save_pretrained(tmp_path)  # type: ignore[operator]
    merged = model.merge_and_unload()  # type: ignore[operator]
    assert torch.allclose(merged(input_ids=IDS_BT).logits, expected, atol=1e-6)


class Sizes(TorchDispatchMode):
    """Elements of every floating tensor that an operation makes; views make none."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        is_new = isinstance(out, Tensor) and not func.is_view and out.is_floating_point()
        self.largest = max(self.largest, out.numel() if is_new else 0)
        return out


def test_no_copy_and_no_gradient_of_the_whole_embedding(student_dir: Path, tmp_path: Path) -> None:
    def largest(model: nn.Module) -> int:
        ids_BT = IDS_BT[:, :4]
        with Sizes() as sizes:
            model.get_input_embeddings()(ids_BT).sum().backward()  # type: ignore[operator]
        return sizes.largest

    model = trained_rows(tied=False)
    assert largest(model) == VOCABULARY * DIM
    lighten(model)
    assert largest(model) <= IDS_BT[:, :4].numel() * DIM


def copied_bytes(run: Callable[[], Any]) -> int:
    """Of tensors that are made as others' copies in another type."""

    class Copies(TorchDispatchMode):
        bytes = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            if func is torch.ops.aten._to_copy.default:
                Copies.bytes += out.numel() * out.element_size()
            return out

    with Copies():
        run()
    return Copies.bytes


def lora_model(student_dir: Path, folder: Path) -> CoatModel:
    config = toy_config(student_dir, folder, folder, lora={"full": False}).to_dict()
    half = {"path": str(student_dir), "dtype": "bfloat16"}
    return build_model(TrainConfig.from_dict({**config, "student": half}, "test"), {})


@contextmanager
def as_peft_has_it(model: nn.Module) -> Iterator[None]:
    """Adapters with their own cast of inputs."""
    layers: list[Any] = [m for m in model.modules() if isinstance(m, LoraLayer)]
    ours = [m.__dict__.pop("_cast_input_dtype") for m in layers]
    yield
    for layer, function in zip(layers, ours, strict=True):
        layer._cast_input_dtype = function


def test_adapters_make_no_float32_copies_of_their_inputs_under_autocast(student_dir: Path, tmp_path: Path) -> None:
    model = lora_model(student_dir, tmp_path)
    layer = next(m for name, m in model.named_modules() if name.endswith("language_model.layers.0"))
    states = torch.randn(2, 300, model.student.hidden_size, dtype=torch.bfloat16)
    rotary = model.student.language_model.rotary_emb(states, torch.arange(300)[None])  # type: ignore[operator]

    def run() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return layer(states, position_embeddings=rotary, attention_mask=None)

    with as_peft_has_it(model):
        theirs, before = copied_bytes(run), run()
    assert copied_bytes(run) < 0.6 * theirs
    assert torch.equal(run(), before)
    with torch.no_grad():  # without autocast they are cast, as they must be
        assert layer(states, position_embeddings=rotary, attention_mask=None).dtype == torch.bfloat16


def test_rows_of_a_student_are_overlaid(student_dir: Path, tmp_path: Path) -> None:
    model = build_model(toy_config(student_dir, tmp_path, tmp_path, lora={"full": False}), {})
    layers = [m for m in model.modules() if isinstance(m, TrainableTokensLayer)]
    assert [type(layer) for layer in layers] == [OverlaidRows]
    new_ids = torch.tensor([[0, *model.block.new_ids]])
    embeddings = model.student.model.get_input_embeddings()
    assert torch.equal(embeddings(new_ids)[:, 1:], layers[0].trainable_tokens_delta["default"][None])
    assert torch.equal(
        embeddings(new_ids)[:, 0], load_student(str(student_dir)).model.get_input_embeddings()(torch.tensor([0]))
    )
