"""How a student's conversations are written: its chat template, and what a text in it must not hold."""

from collections.abc import Callable, Sequence
from typing import Any

from coat.manifests import InputError
from coat.trainer.students.unusable import UnusableInput

Turns = Sequence[tuple[str, str]]  # prompts and answers before the prompt that is answered


class Chat:
    """`audio_token` is the template's placeholder of audio, `turn_end` the token that ends a turn."""

    def __init__(self, source: str, processor: Any, model_type: str, audio_token: str, turn_end: str) -> None:
        self.source, self.processor, self.model_type = source, processor, model_type
        self.audio_token, self.turn_end = audio_token, turn_end
        # Size of the vocabulary, and `added_tokens` then.
        self.known_tokens: tuple[int, tuple[tuple[str, ...], tuple[str, ...]]] = (-1, ((), ()))
        self.log: Callable[[str], None] = lambda _: None  # for lines about texts
        self.words_seen: set[str] = set()  # of the student's own, that texts had

    @property
    def tokenizer(self) -> Any:
        return self.processor.tokenizer

    def check_text(self, text: str) -> None:
        """UnusableInput where a text would be read as the end of a turn, as audio, or as a think position.

        What is one token to this student and yet a text (`<think>`) stays as it is, and is said once.
        """
        markup, words = self.added_tokens()
        if any(token in text for token in markup):
            raise UnusableInput(
                "special_token", f"{text[:60]!r} holds a special token of {self.model_type}; leave it out"
            )
        for word in words:
            if word in text and word not in self.words_seen:
                self.words_seen.add(word)
                self.log(
                    f"texts hold {word}, which is one token to this {self.model_type}: it is read, learnt and said as "
                    "that, not letter by letter, and is none of coat's think tokens"
                )

    def added_tokens(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Texts that the tokenizer reads as one token: its special ones, that are markup and none of any text; and
        others, that are words of its own (`<think>`, `<tool_call>`). To ask it for them takes some 40 ms.
        """
        if self.known_tokens[0] != (size := len(self.tokenizer)):  # think tokens may have been added
            added, tokens = self.tokenizer.get_added_vocab(), self.tokenizer.added_tokens_decoder
            always = {self.audio_token, self.turn_end}  # whatever the tokenizer says of them, and of all in <| |>
            markup = tuple(
                text for text, id in added.items()
                if tokens[id].special or text in always or (text.startswith("<|") and text.endswith("|>"))
            )  # fmt: skip
            self.known_tokens = size, (markup, tuple(text for text in added if text not in markup))
        return self.known_tokens[1]

    def render(self, prompt: str, audios: int = 1, turns: Turns = ()) -> str:
        """The chat up to where the response to `prompt` starts. All audio stands in the first turn, before its text."""
        texts = [*(text for turn in turns for text in turn), prompt]  # of user and assistant in turn
        for text in texts:
            self.check_text(text)
        messages: list[dict[str, Any]] = [
            {"role": "assistant" if i % 2 else "user", "content": [{"type": "text", "text": text}]}
            for i, text in enumerate(texts)
        ]
        messages[0]["content"][:0] = [{"type": "audio", "audio_url": "audio"}] * audios
        return self.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)

    def tokenize_turns(
        self, prompt: str, audios: int = 1, turns: Turns = ()
    ) -> tuple[str, list[tuple[list[int], list[int]]]]:
        """The chat up to its first answer; then ids of each earlier answer, and of what follows up to the next.

        InputError where the student's template writes a turn otherwise once others follow.
        """
        prompts = [*(user for user, _ in turns), prompt]
        texts = [self.render(prompts[n], audios, turns[:n]) for n in range(len(prompts))]
        rest = []
        for (_, answer), before, after in zip(turns, texts, texts[1:], strict=False):
            answered = f"{before}{answer}{self.turn_end}"
            if not after.startswith(answered):
                raise InputError(f"{self.source}: its chat template rewrites earlier turns; train it on single turns")
            between = self.tokenizer(after[len(answered) :], add_special_tokens=False)["input_ids"]
            rest.append((self.response_ids(answer), between))
        return texts[0], rest

    def response_ids(self, response: str) -> list[int]:
        """The response and the token that ends a turn."""
        self.check_text(response)
        ids = self.tokenizer(response, add_special_tokens=False)["input_ids"]
        return [*ids, self.tokenizer.convert_tokens_to_ids(self.turn_end)]

    @property
    def stop_ids(self) -> list[int]:
        """Tokens that end an answer; checkpoints differ in whether the tokenizer's own is the turn's."""
        return sorted({self.tokenizer.convert_tokens_to_ids(self.turn_end), self.tokenizer.eos_token_id})
