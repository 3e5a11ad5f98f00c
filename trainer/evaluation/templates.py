"""How a question becomes the prompt that is sent. A template is data: its text is written beside the results."""

import re
import string
from dataclasses import dataclass
from typing import Self

from coat.manifests import InputError

FIELD = re.compile(r"\{(question|choices)\}")
LETTERS = string.ascii_uppercase


@dataclass(frozen=True)
class Template:
    """`text` holds {question} and {choices}; a choice is written by `choice` ({letter}, {text}), `between` others.

    A question without choices is sent by `open`, as it stands.
    """

    name: str
    text: str
    choice: str = "{text}"
    between: str = ", "
    open: str = "{question}"
    at_least: int = 0  # choices that are listed; those that a question lacks are called None

    def render(self, question: str, choices: tuple[str, ...] = ()) -> str:
        """In one pass: a question that holds `{choices}` is sent as it is."""
        all_choices = [*choices, *["None"] * (self.at_least - len(choices))]
        listed = self.between.join(self.list_item(i, text) for i, text in enumerate(all_choices))
        values = {"question": question, "choices": listed}
        return FIELD.sub(lambda found: values[found[1]], self.text if choices else self.open)

    def list_item(self, index: int, text: str) -> str:
        return re.sub(r"\{(letter|text)\}", lambda f: letter(index) if f[1] == "letter" else text, self.choice)

    @property
    def has_letters(self) -> bool:
        """Whether choices are named by letters, which an answer may then give."""
        return "{letter}" in self.choice

    @classmethod
    def of_text(cls, text: str) -> Self:
        """A user's own, from the command line. InputError where it lacks {question}."""
        if "{question}" not in text:
            raise InputError(f"--template {text!r}: no such template, and no text with {{question}} in it")
        return cls("own", text.replace("\\n", "\n"), "({letter}) {text}", "\n", text.split("{choices}")[0].strip())


def letter(index: int) -> str:
    """A, B, ... ; a number behind Z."""
    return LETTERS[index] if index < len(LETTERS) else str(index + 1)


# As `data.choices = "append"` writes it in training: a student of coat knows this one.
COAT = Template("coat", "{question}\nChoices: {choices}")
# The question alone: for answers without choices, and students that were trained with `data.choices = "ignore"`.
AS_IT_IS = Template("as-it-is", "{question}")
# Audio Flamingo's (its issue 29).
AUDIO_FLAMINGO = Template(
    "audio-flamingo",
    "{question}\nChoose the correct option from the following options:\n{choices}",
    "({letter}) {text}",
    "\n",
)
# A student that is made to think in text, for comparison (--template cot, --cot); the answer stands behind "Answer:".
COT = Template(
    "cot",
    "{question}\nChoices: {choices}\nThink step by step about what you hear, then end with a line: Answer: the choice.",
    open="{question}\nThink step by step about what you hear, then end with a line: Answer: your answer.",
)
