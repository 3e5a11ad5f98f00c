"""Options that do not fit each other are refused in one line; others become settings."""

from typing import Any

import pytest

from coat.cli.trained.evaluate import settings_of
from coat.manifests import InputError


@pytest.mark.parametrize(
    ("names", "data", "options", "message"),
    [
        (None, None, {}, "--data is missing"),
        (["mmau"], ["a", "b"], {}, "1 --benchmark and 2 --data; expected one --data for each"),
        (None, ["a"], {"whom": {}}, "nobody to ask: expected one of --run"),
        (None, ["a"], {"whom": {"run": "r", "server": "s"}}, "--run and --server: expected one of"),
        (["mmau", "mmar"], ["a", "b"], {"whom": {"predictions": ["p"]}}, "1 --predictions for 2 benchmarks"),
        (None, ["a"], {"whom": {"student": "s"}, "subject": {"step": "3"}}, "--step 3: of a --run"),
        (None, ["a"], {"subject": {"model": "m"}}, "--model m: of a --server"),
        (["mmau", "mmau"], ["x/a.jsonl", "y/a.jsonl"], {}, "mmau:a twice; evaluate them into two folders"),
        (None, ["a"], {"subject": {"dtype": "int8"}}, "coat evaluate: subject.dtype"),
    ],
)
def test_refused(names: list[str] | None, data: list[str] | None, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        settings_of(names, data, **{"whom": {"run": "r"}, **options})


def test_names_of_results() -> None:
    def labels(names: list[str] | None, data: list[str]) -> list[str]:
        return [one.label for one in settings_of(names, data, whom={"run": "r"}).benchmarks]

    assert labels(None, ["held.jsonl"]) == ["manifest"]
    assert labels(None, ["a/held.jsonl", "b/other.jsonl.gz"]) == ["manifest:held", "manifest:other"]
    assert labels(["mmau", "my/file.py:Mine"], ["m.jsonl", "n.jsonl"]) == ["mmau", "Mine"]
