"""What takes long to import, for the server that ranks are forked from. It must start no thread of torch's."""

import peft  # noqa: F401
import torch.utils.tensorboard  # noqa: F401
from transformers import Qwen2AudioForConditionalGeneration, Qwen2AudioProcessor  # noqa: F401

import coat.trainer.training.train  # noqa: F401
import tests.trainer.training.processes  # noqa: F401
