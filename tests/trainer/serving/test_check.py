"""`coat serve-check` against servers that are right, and against ones that are wrong in the ways that servers are.

The server is the run itself behind OpenAI's chat API, over HTTP.
"""

import base64
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch

from coat.manifests import InputError, RunError
from coat.trainer import load_run, train
from coat.trainer.evaluation.asking.chat import ChatClient
from coat.trainer.generation.generate import Question, Trained
from coat.trainer.model.thinking import ThinkingBlock
from coat.trainer.serving.check import check, server_url
from coat.trainer.serving.difference import first_difference, of_words
from coat.trainer.serving.questions import heard_of, made_here, questions_of
from coat.trainer.tiny_students.make import make_tiny_student
from tests.integration.helpers import coat
from tests.trainer.helpers import toy_config, toy_conversation, toy_sample, toy_text, write_shards

TOKENS = 8


class Served(ThreadingHTTPServer):
    """`tells`: ids, counts or nothing of prompt and answer. `changed`: by place, tokens that it says instead."""

    def __init__(self, trained: Trained) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.trained, self.tells, self.changed = trained, "ids", dict[int, int]()
        self.refused = ""  # a field, or "all"
        self.asked: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Served  # pyright: ignore[reportIncompatibleVariableOverride] - as http.server has it, narrower

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.reply(200, {"data": [{"id": "coat"}]})

    @torch.inference_mode()
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(body)
        if self.server.refused and (self.server.refused == "all" or self.server.refused in body):
            self.reply(400, {"error": {"message": f"{self.server.refused}: not here"}})
            return
        trained, texts, clips = self.server.trained, [], []
        for message in body["messages"]:
            parts = message["content"]
            for part in parts if isinstance(parts, list) else [{"type": "text", "text": parts}]:
                if part["type"] == "text":
                    texts.append(part["text"])
                else:
                    data = base64.b64decode(part["input_audio"]["data"])
                    clips.append((heard_of(part["input_audio"]), soundfile.info(io.BytesIO(data)).format))
        turns = tuple(zip(texts[:-1:2], texts[1:-1:2], strict=True))
        inputs = trained.pad_left([trained.encode(clips, Question(None, texts[-1], turns=turns))])
        ids = trained.generate(inputs, body["max_tokens"])[0].tolist()
        for at, token in self.server.changed.items():
            ids[at] = token
        prompt_ids, tokenizer = inputs["input_ids"][0].tolist(), trained.student.tokenizer
        choice: dict[str, Any] = {"finish_reason": "stop"}
        choice["message"] = {"role": "assistant", "content": tokenizer.decode(ids, skip_special_tokens=True)}
        answer: dict[str, Any] = {"choices": [choice], "usage": {"completion_tokens": len(ids)}}
        if self.server.tells == "ids" and body.get("return_token_ids"):
            choice["token_ids"], answer["prompt_token_ids"] = ids, prompt_ids
        if self.server.tells != "nothing":
            answer["usage"]["prompt_tokens"] = len(prompt_ids)
        self.reply(200, answer)

    def reply(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture(scope="module")
def run(shards_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of weights so large that answers differ; with held-out shards of which the student cannot take one sample."""
    folder = tmp_path_factory.mktemp("checked")
    student = make_tiny_student(folder / "student", weights_std=0.3)
    long = toy_sample(3, seconds=3.5)
    samples = [toy_sample(0), toy_text(1), long, toy_conversation(2), toy_sample(5)]
    held_out = write_shards(folder / "heldout", samples)
    evaluation = {"shards": str(held_out), "every": 1000}
    train(toy_config(student, shards_dir, folder / "run", steps=2, evaluation=evaluation))
    return folder / "run"


@pytest.fixture
def trained(run: Path) -> Trained:
    torch.set_num_threads(1)
    return load_run(run, "cpu")


@pytest.fixture
def server(trained: Trained) -> Iterator[Served]:
    with Served(trained) as found:
        thread = threading.Thread(target=found.serve_forever, daemon=True)
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def checked(trained: Trained, server: Served, **options: Any) -> Any:
    questions = questions_of(trained, None, 10)
    return check(trained, ChatClient(server.url, retries=0), questions, max_new_tokens=TOKENS, **options)


def test_what_is_the_same_is_said_to_be(trained: Trained, server: Served) -> None:
    """Audio, text alone and turns, of the run's held-out shards; what is too long is left out and counted."""
    found = checked(trained, server)
    assert (found.source, found.left_out) == ("the run's held-out shards", {"too_long": 1})
    assert len(found.rows) == 4
    assert found.by_tokens
    assert found.different == found.tolerated == []
    assert len({row.run for row in found.rows}) > 1  # else it would be the same of anything
    assert sum("input_audio" in json.dumps(body) for body in server.asked) == 3
    assert {body["temperature"] for body in server.asked} == {0.0}


def test_a_token_that_differs_is_named(trained: Trained, server: Served) -> None:
    server.changed = {2: trained.student.tokenizer("Z")["input_ids"][0]}
    found = checked(trained, server)
    assert len(found.different) == 4
    difference = found.different[0].difference
    assert (difference.at, difference.unit, difference.server) == (2, "token", "Z")
    assert difference.margin > 0  # greedily, the run holds its own likelier
    passed = checked(trained, server, margin=max(row.difference.margin for row in found.different))
    assert passed.different == []
    assert len(passed.tolerated) == 4


def test_a_server_that_tells_texts_alone_is_compared_by_words(trained: Trained, server: Served) -> None:
    server.tells, server.refused = "nothing", "return_token_ids"
    found = checked(trained, server)
    assert not found.by_tokens
    assert found.different == []
    server.changed = {0: trained.student.tokenizer("Z")["input_ids"][0]}
    assert all(row.difference.unit == "word" for row in checked(trained, server).different)


@pytest.mark.parametrize("tells", ["ids", "counts"])
def test_a_prompt_without_block_is_found(trained: Trained, server: Served, tells: str) -> None:
    """Of a server that renders another template than the export's."""
    bare = trained.config.thinking.model_copy(update={"count": 0})
    server.trained, server.tells = Trained(trained.student, ThinkingBlock(bare, -1, -1, ()), trained.config), tells
    wrong = [row for row in checked(trained, server).different if row.prompt_difference]
    assert wrong
    assert all("thinking block" in row.prompt_difference for row in wrong)
    if tells == "ids":
        assert len(wrong) == 3  # of all that have audio


def test_refusals_are_rows(trained: Trained, server: Served) -> None:
    server.refused = "all"
    found = checked(trained, server)
    assert [row.error for row in found.different] == ["the server refuses it (400: all: not here)"] * 4


def test_sounds_are_made_where_there_are_none(trained: Trained) -> None:
    config = trained.config.model_copy(
        update={"evaluation": trained.config.evaluation.model_copy(update={"shards": None})}
    )
    bare = Trained(trained.student, trained.block, config)
    found = questions_of(bare, None, 5)
    assert (found.source, len(found.rows)) == ("sounds made here", 5)
    again = list(made_here(trained.student, 5))
    assert [one.wav for one in found.rows] == [one.wav for one in again]
    assert len({str(one.wav) for one in again}) == 5
    for one in again:
        assert one.clip is not None
        assert (one.clip.samples_T * 2**15 % 1 == 0).all()  # 16 bits: the run hears what the server hears


def test_manifests(trained: Trained, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", toy_sample(0)["audio"], 8000)
    rows = [{"id": "a", "audio_filepath": "a.wav", "prompt": "Which?", "choices": ["x", "y"]}]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (found,) = questions_of(trained, str(tmp_path / "m.jsonl"), 5).rows
    assert found.prompt == "Which?\nChoices: x, y"
    assert found.clip is not None
    assert found.clip.rate == 16000  # nobody resamples
    (tmp_path / "a.wav").write_bytes(b"no sound")
    with pytest.raises(InputError, match=r"m\.jsonl, row 1: "):
        questions_of(trained, str(tmp_path / "m.jsonl"), 5)


def test_the_command(run: Path, trained: Trained, server: Served) -> None:
    done = coat("serve-check", server.url, "--run", run, "--max-new-tokens", TOKENS)
    assert "4 of 4 answers are the run's, by tokens, of the run's held-out shards" in done.stdout
    server.changed = {1: trained.student.tokenizer("Z")["input_ids"][0]}
    done = coat("serve-check", server.url.removesuffix("/v1"), "--run", run, "--json", status=1)
    said = json.loads(done.stdout)
    assert (said["rows"], said["different"], said["compared"]) == (4, 4, "tokens")
    assert said["differences"][0]["difference"]["at"] == 1
    done = coat("serve-check", server.url, "--run", run, status=1)
    assert "4 of 4 answers differ" in done.stdout
    done = coat("serve-check", "http://127.0.0.1:9/v1", "--run", run, "--timeout", 1, status=1)
    assert done.stderr.count("\n") == 1
    assert "does not answer" in done.stderr


def test_a_server_that_goes_away_is_one_line(trained: Trained, server: Served) -> None:
    client = ChatClient(server.url, retries=0)
    server.shutdown()
    server.server_close()
    with pytest.raises(RunError, match="does not answer"):
        check(trained, client, questions_of(trained, None, 2))


def test_words_and_urls() -> None:
    assert first_difference([1, 2], [1, 2]) is None
    assert first_difference([1, 2], [1]) == 1
    assert of_words("a b", "a  b ") is None
    found = of_words("a b", "a")
    assert found is not None
    assert (found.at, found.run, found.server) == (1, "b", None)
    assert server_url("http://h:1") == "http://h:1/v1"
    assert server_url("http://h:1/api/v1") == "http://h:1/api/v1"
