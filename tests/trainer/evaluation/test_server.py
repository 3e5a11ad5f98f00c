"""A server with OpenAI's chat API, started here: what is sent, what is made of its answers, and of its failures."""

import base64
import io
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from coat.manifests import Clip, InputError, RunError
from coat.trainer.evaluation.asking.chat import ChatClient
from coat.trainer.evaluation.asking.server import ServerAsker
from coat.trainer.evaluation.asking.streaming import Streamed, read_stream
from coat.trainer.evaluation.checks.cost import Cost
from coat.trainer.evaluation.evaluation import evaluate
from coat.trainer.evaluation.predictions import read_predictions
from tests.integration.helpers import coat
from tests.trainer.evaluation.helpers import settings_of, write_questions

KEY = "sk-do-not-write-me-down"
TOKEN_S = 0.3  # that it takes for a token, where it streams: far more than a busy machine is late


class Server(ThreadingHTTPServer):
    """Says high or low by what it hears. `replies`: statuses and bodies that are given before that."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.replies: list[tuple[int, Any]] = []
        self.models = ["listener"]
        self.judgements: list[str] = []
        self.streams = "refused"  # what becomes of a wish to stream: refused, ignored, at once, or tokens

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride] - as http.server has it, narrower

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.reply(200, {"data": [{"id": name} for name in self.server.models]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.keys.append(self.headers.get("Authorization"))
        if self.server.replies:
            self.reply(*self.server.replies.pop(0))
            return
        if body.get("stream") and self.server.streams == "refused":
            self.reply(400, {"error": {"message": "stream: unknown field"}})
            return
        self.server.requests.append(body)
        if isinstance(body["messages"][0]["content"], str):  # a judge is asked
            said = self.server.judgements.pop(0)
            choice = {"message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
            self.reply(200, {"choices": [choice], "usage": {"prompt_tokens": 50, "completion_tokens": 3}})
            return
        audio = body["messages"][0]["content"][0]["input_audio"]
        samples, rate = soundfile.read(io.BytesIO(base64.b64decode(audio["data"])))
        crossings = np.count_nonzero(np.diff(np.signbit(samples))) * rate / len(samples)
        text = "silence" if not samples.any() else "high" if crossings > 800 else "low"
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 30, "completion_tokens": 2}
        if body.get("stream") and self.server.streams != "ignored":
            self.stream(text, usage, 0.0 if self.server.streams == "at once" else TOKEN_S)
        else:
            self.reply(200, {"choices": [choice], "usage": usage})

    def stream(self, text: str, usage: dict[str, int], token_s: float) -> None:
        """In pieces that are cut anywhere, as a network may."""
        told = [("", None), (text[:2], None), (text[2:], "stop")]
        events = [{"choices": [{"delta": {"content": said}, "finish_reason": why}]} for said, why in told]
        lines = [f"data: {json.dumps(e)}\n\n".encode() for e in [*events, {"choices": [], "usage": usage}]]
        lines.append(b"data: [DONE]\n\n")
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for block in lines if token_s else [b"".join(lines)]:
            time.sleep(token_s)
            for piece in (block[:9], block[9:]) if token_s else (block,):
                self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def reply(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


def test_a_server_is_asked(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    data = write_questions(tmp_path / "data", turns=[["What is it?", "a tone"]])
    options = [
        "--data",
        data,
        "--server",
        server.url,
        "--key-variable",
        "MY_KEY",
        "--guard",
        3,
        "--cost",
        0,
        "--out",
        tmp_path / "e",
    ]
    done = coat("evaluate", *options, "--json")
    results = json.loads(done.stdout)
    assert results["benchmarks"]["manifest"]["scores"]["strict"]["accuracy"] == 1.0
    assert results["subject"] == {
        **results["subject"], "kind": "server", "source": server.url, "model_type": "listener",
        "generation": {"temperature": 0.0},
    }  # fmt: skip
    assert results["hearing"]["hears"]
    assert len(server.requests) == 6 + 3 + 3
    asked = server.requests[0]
    assert (asked["model"], asked["temperature"], asked["max_tokens"]) == ("listener", 0.0, 256)
    first, answer, second = asked["messages"]
    assert [part["type"] for part in first["content"]] == ["input_audio", "text"]
    assert (first["content"][1]["text"], answer) == ("What is it?", {"role": "assistant", "content": "a tone"})
    assert second["content"] == [{"type": "text", "text": "High or low?\nChoices: high, low"}]
    prediction = read_predictions(tmp_path / "e")["manifest", "q0", ""]
    assert (prediction.prompt_tokens, prediction.answer_tokens, prediction.choice) == (30, 2, "high")
    assert set(server.keys) == {f"Bearer {KEY}"}
    written = b"".join(p.read_bytes() for p in (tmp_path / "e").iterdir())
    assert KEY not in written.decode() + done.stdout + done.stderr


def test_audio_is_sent_at_one_rate(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a run's is resampled: a server does it in its own way, or cannot."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    data = write_questions(tmp_path / "data", rows=1)
    row = json.loads(data.read_text().splitlines()[0])
    sound_T, rate = soundfile.read(data.parent / row["audio_filepath"], dtype="float32")
    long_T = np.repeat(np.asarray(sound_T, np.float32), 3)
    soundfile.write(data.parent / row["audio_filepath"], long_T, 3 * rate)
    ask = ["evaluate", "--data", data, "--server", server.url, "--guard", 0, "--cost", 0]
    for options, expected in (((), 16000), (("--audio-rate", 8000), 8000), (("--audio-rate", 0), 3 * rate)):
        coat(*ask, *options, "--out", tmp_path / f"{expected}")
        sent = server.requests.pop()["messages"][0]["content"][0]["input_audio"]
        heard_T, heard_rate = soundfile.read(io.BytesIO(base64.b64decode(sent["data"])), dtype="float32")
        clip = Clip(long_T, 3 * rate)
        assert heard_rate == expected
        assert np.abs(heard_T - clip.at(expected)).max() < 2 / 2**15


def test_failures(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that it refuses fails alone; a server that is busy is asked again; one that is gone stops it all."""
    monkeypatch.setenv("MY_KEY", KEY)
    data = write_questions(tmp_path / "data", rows=3)
    settings = settings_of(data, server.url, "server", guard=0, batch_size=1)

    def asker(_: object) -> ServerAsker:
        return ServerAsker(ChatClient(server.url, key_variable="MY_KEY", timeout=5.0, retries=2), 1)

    server.replies = [(400, {"error": {"message": f"audio is too long, {KEY}"}}), (503, {}), (429, {})]
    found = evaluate(settings, tmp_path / "a", asker)
    assert found
    assert (found.benchmarks["manifest"].failed, found.benchmarks["manifest"].missing) == (1, 1)
    (failed,) = [p for p in read_predictions(tmp_path / "a").values() if p.error]
    assert failed.error == "the server refuses it (400: audio is too long, (key))"

    server.replies = [(401, {"error": "who are you?"})]
    with pytest.raises(InputError, match=r"401 with the key in MY_KEY .who are you"):
        evaluate(settings, tmp_path / "b", asker)
    server.replies = [(500, {})] * 9
    with pytest.raises(RunError, match=r"500 .*the same command goes on"):
        evaluate(settings, tmp_path / "c", asker)
    server.replies = []
    assert evaluate(settings, tmp_path / "c", asker)
    server.models = ["a", "b"]
    with pytest.raises(InputError, match=r"serves 2 models .a, b.; name one with --model"):
        asker(None)
    gone = f"http://127.0.0.1:{server.server_address[1]}/nothing"
    with pytest.raises(InputError, match=r"key does not belong into the URL"):
        ChatClient(gone.replace("//", f"//me:{KEY}@"))


@pytest.mark.parametrize("streams", ["tokens", "at once", "ignored", "refused"])
def test_the_time_to_its_first_token(server: Server, tmp_path: Path, streams: str) -> None:
    """Where it streams; else nobody knows it, and it is said to be absent."""
    server.streams = streams
    data, out = write_questions(tmp_path / "data", rows=3), tmp_path / "e"
    done = coat("evaluate", "--data", data, "--server", server.url, "--guard", 0, "--cost", 3, "--out", out)
    measured = Cost.read(out)
    assert measured
    found = measured.modes["server"]
    assert (found.rows, found.prompt_tokens, found.answer_tokens) == (3, 30, 2)
    assert {p.answer for p in read_predictions(out).values()} == {"high", "low"}
    asked_to_stream = [bool(body.get("stream")) for body in server.requests]
    if streams != "tokens":
        assert found.first_token is None
        assert "does not say when its first token comes" in done.stdout
        assert sum(asked_to_stream) == (0 if streams == "refused" else 4)
        return
    assert found.first_token
    assert 2 * TOKEN_S < found.first_token.p50 < found.total.p50 - 0.9 * TOKEN_S
    assert found.tokens_per_s == pytest.approx(1 / TOKEN_S, rel=0.5)
    assert "does not say" not in done.stdout


def test_streams_that_break() -> None:
    def read(*blocks: bytes) -> Streamed:
        left = [*blocks, b""]

        class Response:
            def read1(self, amt: int | None = None) -> bytes:
                return left.pop(0)

        return read_stream(Response())

    said = b'data: {"choices": [{"delta": {"content": "hi"}}]}\r\n\r\n'
    end = b'data:{"choices": [{"delta": {}, "finish_reason": "length"}]}\n\n'
    whole = read(b": comment\n", said[:5], said[5:], b"event: x\n" + said + end[:-2], b"\n\ndata: [DONE]\n")
    assert (whole.text, whole.cut) == ("hihi", True)
    assert whole.first_at is not None
    assert read(said + end).first_at is None
    with pytest.raises(ValueError, match="ended before the answer did"):
        read(said)
    with pytest.raises(ValueError, match=r"broke off .out of memory"):
        read(said, b'data: {"error": {"message": "out of memory"}}\n')
    with pytest.raises(ValueError, match="an event is list"):
        read(b"data: [1]\n")


def test_a_server_that_is_not_there() -> None:
    with pytest.raises(RunError, match=r"127\.0\.0\.1:9/v1: does not answer"):
        ChatClient("http://127.0.0.1:9/v1", retries=0)
    with pytest.raises(InputError, match=r"expected the URL of an API"):
        ChatClient("localhost:8000")


JUDGED = """
from coat.trainer.evaluation.benchmark import Verdict
from coat.trainer.evaluation.benchmarks.manifest import ManifestQuestions

class Mine(ManifestQuestions):
    name = "mine"
    def judge_request(self, row, answer):
        return f"Is {answer!r} the same as {row.response!r}? Say yes or no."
    def judged(self, row, judgement):
        return Verdict(judgement == "yes", judgement, unparsed=judgement not in ("yes", "no"))
"""


def test_a_judge(server: Server, tmp_path: Path) -> None:
    """A benchmark of one's own, in a file; its answers are scored by a judge, or not at all."""
    (tmp_path / "mine.py").write_text(JUDGED)
    data = write_questions(tmp_path / "data", rows=4)
    answers = tmp_path / "answers.jsonl"
    given = {"q0": "it is high", "q1": "it is low", "q2": "perhaps", "q3": ""}
    answers.write_text("".join(json.dumps({"id": i, "response": said}) + "\n" for i, said in given.items()))
    options = ["--benchmark", f"{tmp_path / 'mine.py'}:Mine", "--data", data, "--predictions", answers, "--json"]
    alone = json.loads(coat("evaluate", *options, "--out", tmp_path / "alone").stdout)["benchmarks"]["Mine"]
    assert (alone["unscored"], alone["empty"], alone["scores"]["strict"]) == (3, 1, {"accuracy": 0.0})
    server.judgements = ["yes", "no", "who knows?"]
    judged = coat("evaluate", *options, "--judge", server.url, "--batch-size", 1, "--out", tmp_path / "e")
    found = json.loads(judged.stdout)["benchmarks"]["Mine"]
    assert (found["unscored"], found["unparsed"], found["scores"]["strict"]) == (0, 1, {"accuracy": 0.25})
    judge = found["judge"]
    assert (judge["model"], judge["rows"], judge["unparsed"]) == ("listener", 3, 1)
    assert (judge["prompt_tokens"], judge["answer_tokens"]) == (150, 9)
    assert judge["prompt"] == "Is 'it is high' the same as 'high'? Say yes or no."
    assert [body["temperature"] for body in server.requests] == [0.0] * 3
    again = coat("evaluate", *options, "--judge", server.url, "--batch-size", 1, "--out", tmp_path / "e")
    assert (len(server.requests), again.stdout) == (3, judged.stdout)  # each was judged once
