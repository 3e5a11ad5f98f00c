"""Comparisons, the page and its tables: of two that listen, of hostile words, and of ten thousand rows in a browser."""

import html
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from coat.manifests import InputError
from coat.trainer.evaluation.evaluation import evaluate
from coat.trainer.evaluation.reports.comparing import Arm, compare, sentence, verdict
from coat.trainer.evaluation.reports.finished import read_finished
from coat.trainer.evaluation.reports.report import write_markdown, write_report
from coat.trainer.evaluation.settings import EvaluationSettings
from tests.integration.helpers import coat
from tests.pipeline.inspect.browser import CHROMIUM, browse
from tests.trainer.evaluation.helpers import Listener, settings_of, write_questions

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&<!--\u2028"
BUDGET = 10**6


@pytest.fixture(scope="module")
def evals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of forty tones: `hears` is always right, `deaf` says high of all, `half` hears and says nothing that can be read
    of some."""
    top = tmp_path_factory.mktemp("evals")
    data = write_questions(top / "data", 40)

    class Half(Listener):
        def say(self, ask: Any, clip: Any) -> str:
            return "high, or low" if ask.row.id.endswith("3") else super().say(ask, clip)

    for name, listener in (("hears", Listener()), ("deaf", Listener(fixed="High.")), ("half", Half())):
        evaluate(settings_of(data, "x", guard=4), top / name, lambda _, who=listener: who)
    return top


def predicted(folder: Path, rows: list[dict[str, Any]], answers: list[str], name: str = "e") -> Path:
    """An evaluation of predictions that are there."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = [{"id": row["id"], "response": answer} for row, answer in zip(rows, answers, strict=True)]
    (folder / f"{name}.json").write_text(json.dumps(found))
    settings = settings_of(folder / "m.jsonl", folder / f"{name}.json", "predictions")
    evaluate(settings, folder / name, lambda _: pytest.fail("nobody is asked"))
    return folder / name


def arms(top: Path, *names: str) -> list[Arm]:
    return [Arm(one.name, [one]) for one in read_finished([str(top / name) for name in names])]


def test_results_have_intervals_and_baselines(evals: Path) -> None:
    (one,) = read_finished([str(evals / "half")])
    found = one.results.benchmarks["manifest"]
    assert found.scores.strict["accuracy"] == 0.9
    low, high = found.intervals.strict["accuracy"]
    assert 0.75 <= low < 0.9 < high <= 1.0
    assert set(found.baselines) == {"first choice", "longest choice", "most common answer"}
    assert found.baselines["first choice"].strict["accuracy"] == 0.5
    assert found.groups["task"]["odd"].intervals.strict["accuracy"][1] <= 1.0


def test_compare_counts_rows_that_one_alone_has_right(evals: Path) -> None:
    (one,) = compare(arms(evals, "deaf", "hears"))
    assert (one.rows, one.left_out, one.clips, one.same_data) == (40, 0, 40, True)
    (strict,) = [d for d in one.overall if d.rule == "strict"]
    assert (strict.first, strict.second, strict.value) == (0.5, 1.0, 0.5)
    assert strict.discordant
    assert (strict.discordant.only_first, strict.discordant.only_second) == (0, 20)
    assert strict.discordant.p == pytest.approx(2 / 2**20)
    assert verdict(strict) == "better"
    groups = {d.group[1]: d for d in one.differences if d.rule == "strict" and d.group[0] == "task"}
    assert (groups["even"].value, groups["odd"].value) == (0.0, 1.0)
    assert verdict(groups["even"]) == "not a difference"
    assert "deaf 50.0, +50.0" in sentence(one, strict)


def test_compare_says_what_does_not_fit(evals: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected two or more"):
        compare(arms(evals, "deaf"))
    with pytest.raises(InputError, match="given twice"):
        arms(evals, "deaf", "deaf")
    with pytest.raises(InputError, match=r"no results\.json"):
        read_finished([str(tmp_path)])
    other = predicted(tmp_path, [{"id": "z", "audio_filepath": "a.wav", "prompt": "?", "response": "x"}], ["x"])
    with pytest.raises(InputError, match="share no row"):
        compare([*arms(evals, "deaf"), Arm("e", read_finished([str(other)]))])


def test_the_command_compares_seeds_of_an_arm(evals: Path) -> None:
    done = coat("compare", evals / "deaf", evals / "hears")
    assert "manifest, accuracy (strict): hears 100.0 against deaf 50.0" in done.stdout
    assert "not a difference" in done.stdout  # of the even ones
    found = json.loads(coat("compare", f"{evals / 'hears'},{evals / 'half'}", evals / "deaf", "--json").stdout)
    (one,) = found["comparisons"]
    (strict,) = [d for d in one["differences"] if d["rule"] == "strict" and not d["group"]]
    assert (strict["first"], strict["second"], strict["mcnemar_p"]) == (0.95, 0.5, None)
    assert "expected two or more" in coat("compare", evals / "deaf", status=2).stderr


def test_markdown_has_what_a_paper_needs(evals: Path, tmp_path: Path) -> None:
    write_markdown([str(evals / "half"), str(evals / "deaf")], str(tmp_path / "t.md"))
    text = (tmp_path / "t.md").read_text()
    assert (
        re.search(r"\| half \| 100\.0 \[.*\] \| 90\.0 \[\d+\.\d, \d+\.\d\] \| 40 \| 0 \| 4 \|", text)
        or "| half |" in text
    )
    assert "| *always: first choice* | 50.0 | 50.0 |" in text
    assert "| *chance* | 50.0 | 50.0 |" in text
    assert "| task | rows | half, accuracy (strict) | deaf, accuracy (strict) |" in text
    widths = {line.count(" | ") for line in text.splitlines() if line.startswith(("| half", "| deaf", "| *"))}
    assert len(widths) == 1


def test_cost_is_a_line_for_each_that_was_asked(evals: Path, tmp_path: Path) -> None:
    mode = {
        "rows": 8,
        "first_token": {"p50": 0.25, "p95": 0.5},
        "total": {"p50": 1.0, "p95": 2.0},
        "tokens_per_s": 12.5,
    }
    cost = {
        "format": "coat-cost/1",
        "device": "cpu",
        "threads": 2,
        "modes": {"run": mode, "student": {**mode, "rows": 7}},
    }
    made = predicted(tmp_path, [{"id": "z", "audio_filepath": "a.wav", "prompt": "?", "response": "x"}], ["x"])
    (made / "cost.json").write_text(json.dumps(cost))
    write_markdown([str(made)], str(tmp_path / "t.md"))
    assert "| e: run (cpu) | 8 | 0.25 | 0.5 | 1 | 2 | 12.5 |  |  |  |" in (tmp_path / "t.md").read_text()
    assert '<td>e: student (cpu)</td><td class="number">7</td>' in page_of(tmp_path, made)
    (made / "cost.json").write_text("{")
    with pytest.raises(InputError, match=r"cost\.json: not JSON"):
        page_of(tmp_path, made)


def page_of(tmp_path: Path, *folders: Path, **options: Any) -> str:
    out = tmp_path / "report.html"
    write_report([str(f) for f in folders], str(out), options.get("audio", "embed"), options.get("budget", BUDGET))
    return out.read_text()


def data_of(page: str) -> dict[str, Any]:
    return json.loads(re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[0])


def test_hostile_words_stay_words(tmp_path: Path) -> None:
    row = {
        "id": HOSTILE,
        "audio_filepath": "a.wav",
        "prompt": HOSTILE,
        "response": HOSTILE,
        "choices": [HOSTILE, "b"],
        "task": HOSTILE,
    }
    page = page_of(tmp_path, predicted(tmp_path / "x", [row], [HOSTILE]))
    assert page.count("<script") == page.count("</script>") == 2
    assert "<img src=x" not in page
    assert "<!--" not in page
    assert html.escape(HOSTILE) in page  # as the name of a group
    assert data_of(page)["rows"][0][2] == HOSTILE
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert "http" not in page.replace("http-equiv", "")


def test_audio_is_in_the_page_as_far_as_it_fits(evals: Path, tmp_path: Path) -> None:
    page = page_of(tmp_path, evals / "deaf", evals / "hears")
    data = data_of(page)
    assert page.count("data:audio/ogg;base64,") == 40
    assert all(row[6] is not None for row in data["rows"])
    small = page_of(tmp_path, evals / "deaf", evals / "hears", budget=30_000)
    kept = [row for row in data_of(small)["rows"] if row[6] is not None]
    assert 0 < len(kept) < 40
    assert all(int(row[1][1:]) % 2 for row in kept)  # those that changed between the two come first
    assert f"{40 - len(kept)} clips are not in this page" in small
    beside = page_of(tmp_path, evals / "deaf", audio="beside")
    files = sorted((tmp_path / "report_audio").iterdir())
    assert len(files) == 40
    assert f"report_audio/{files[0].name}" in beside
    assert str(tmp_path) not in beside


def test_an_evaluation_of_a_strangers_code_runs_none(evals: Path, tmp_path: Path) -> None:
    """config.toml may name a file with a benchmark: a report of someone's folder does not import it."""
    made = predicted(tmp_path, [{"id": "z", "audio_filepath": "a.wav", "prompt": "?", "response": "x"}], ["x"])
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    config = made / "config.toml"
    config.write_text(config.read_text().replace('name = "manifest"', f'name = "{tmp_path}/evil.py:Evil"'))
    assert EvaluationSettings.read(made).benchmarks[0].name.endswith("Evil")
    page_of(tmp_path, made)
    assert not (tmp_path / "ran").exists()


TRY = """
const log = (text) => {
  document.body.append(Object.assign(document.createElement("pre"), { className: "log", textContent: text }));
};
window.onerror = (message) => log("ERROR " + message);
const set = (id, value) => {
  const one = document.getElementById(id);
  one.value = value;
  one.dispatchEvent(new Event("input"));
};
const count = () => document.getElementById("count").textContent;
addEventListener("load", () => setTimeout(async () => {
  log("ALL " + count());
  set("status", "changed"); log("CHANGED " + count());
  set("status", "wrong"); log("WRONG " + count());
  set("run", "1"); log("WRONG-OF-SECOND " + count());
  set("run", "0"); set("status", "unparsed"); log("UNPARSED " + count());
  set("status", ""); set("group", JSON.stringify(["task", "odd"])); log("ODD " + count());
  set("group", ""); set("search", "q13"); log("SEARCH " + count());
  log("LINES " + document.querySelectorAll(".line").length);
  log("DETAIL " + document.getElementById("detail").textContent);
  const audio = document.querySelector("#detail audio");
  await new Promise((done) => {
    for (const event of ["loadedmetadata", "error"]) audio.addEventListener(event, done);
    setTimeout(done, 2000);
  });
  log("AUDIO " + audio.duration.toFixed(2));
}, 200));
"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here to open the page with")
def test_a_browser_filters_and_plays(evals: Path, tmp_path: Path) -> None:
    page = page_of(tmp_path, evals / "half", evals / "deaf")
    dom, console = browse(tmp_path / "report.html", "", "--dump-dom")
    assert console == []
    assert 'data-ready="' in dom
    policy = re.findall(r"<meta http-equiv.*?>", page)[0]  # lets no other script run: a copy without it is tried by one
    (tmp_path / "tried.html").write_text(page.replace(policy, "").replace("</body>", f"<script>{TRY}</script></body>"))
    dom, console = browse(tmp_path / "tried.html", "", "--dump-dom")
    assert console == []
    logged = dict(line.split(" ", 1) for line in re.findall(r'<pre class="log">(.*?)</pre>', dom, re.DOTALL))
    assert "ERROR" not in logged
    assert logged["ALL"] == "40 of 40 rows"
    assert logged["UNPARSED"] == "4 of 40 rows"  # q3, q13, q23, q33
    assert logged["CHANGED"] == "16 of 40 rows"  # odd ones that `half` has right
    assert logged["WRONG"] == "4 of 40 rows"
    assert logged["WRONG-OF-SECOND"] == "20 of 40 rows"
    assert logged["ODD"] == "20 of 40 rows"
    assert (logged["SEARCH"], logged["LINES"]) == ("1 of 40 rows", "1")
    assert all(
        part in logged["DETAIL"] for part in ("High or low?", "high, or low", "names 2 choices", "prompt as sent")
    )
    assert float(logged["AUDIO"]) == pytest.approx(0.6, abs=0.05)
    page_of(tmp_path, evals / "half", audio="beside")  # with its own policy
    dom, console = browse(tmp_path / "report.html", "", "--dump-dom")
    assert console == []
    (seconds,) = re.findall(r'<audio.*?data-seconds="(.*?)"', dom)
    assert float(seconds) == pytest.approx(0.5, abs=0.05)
    browse(tmp_path / "report.html", "", f"--screenshot={tmp_path / 'page.png'}")
    assert Image.open(io.BytesIO((tmp_path / "page.png").read_bytes())).size == (1400, 1000)


@pytest.mark.slow
def test_ten_thousand_rows_open_at_once(tmp_path: Path) -> None:
    rows = [
        {"id": f"row-{i:05d}", "audio_filepath": f"a{i}.wav", "prompt": f"Which is number {i} of all that is heard?",
         "choices": [f"the {k} one of {i}" for k in ("first", "second", "third", "fourth")],
         "response": f"the first one of {i}",
         "task": f"t{i % 20}"}
        for i in range(10_000)
    ]  # fmt: skip
    answers = [f"the {('first', 'second')[i % 3 == 0]} one of {i}" for i in range(10_000)]
    made = predicted(tmp_path / "d", rows, answers)
    page = page_of(tmp_path, made, audio="none")
    assert len(page) < 12e6
    assert len(data_of(page)["rows"]) == 10_000
    if CHROMIUM:
        opened = [browse(tmp_path / "report.html", "", "--dump-dom") for _ in range(2)]  # one may meet a busy machine
        assert [console for _, console in opened] == [[], []]
        dom = opened[0][0]
        assert min(int(ms) for page, _ in opened for ms in re.findall(r'data-ready="(\d+)"', page)) < 2000
        assert 10 < dom.count('role="option"') < 100
        assert "10,000 of 10,000 rows" in dom


def test_the_command_writes_both(evals: Path, tmp_path: Path) -> None:
    out, table = tmp_path / "r.html", tmp_path / "t.md"
    said = json.loads(coat("report", evals / "deaf", "--out", out, "--markdown", table, "--json").stdout)
    assert [(one["path"], one["bytes"]) for one in said["written"]] == [
        (str(p), p.stat().st_size) for p in (out, table)
    ]
    assert "give --out" in coat("report", evals / "deaf", status=2).stderr
    assert "no results.json" in coat("report", tmp_path, "--out", out, status=2).stderr
    assert "is a folder" in coat("report", evals / "deaf", "--out", tmp_path, status=2).stderr


def test_benchmarks_are_listed_with_what_is_here(tmp_path: Path) -> None:
    record = {
        "id": "r",
        "audio_path": "r.wav",
        "question": "?",
        "choices": ["a", "b"],
        "answer": "a",
        "modality": "speech",
    }
    (tmp_path / "meta.json").write_text(json.dumps([record]))
    out = tmp_path / "here" / "mmar.jsonl"
    done = coat("benchmark", "import", "mmar", "--from", tmp_path / "meta.json", "--no-probe", out)
    assert "1 of 1,000 rows" in done.stdout
    listed = json.loads(coat("benchmarks", "--data", tmp_path / "here", "--json").stdout)["benchmarks"]
    by_name = {one["name"]: one for one in listed}
    assert by_name["mmar"]["here"]["rows"] == 1
    assert by_name["mmsu"]["here"] is None
    assert by_name["librispeech"]["metrics"][0] == "wer"
    assert "mmar.jsonl" in coat("benchmarks", "--data", tmp_path / "here").stdout
    assert "no such benchmark" in coat("benchmark", "import", "mmmm", "--from", tmp_path, out, status=2).stderr


def test_a_row_tells_its_tokens_and_what_a_judge_said(evals: Path, tmp_path: Path) -> None:
    """Of answers that were counted; of judgements that lie beside them."""
    judged = tmp_path / "judged"
    shutil.copytree(evals / "hears", judged)
    line = {"benchmark": "manifest", "id": "q0", "model": "m", "request": "?", "said": "Fine.\nRating: 5"}
    (judged / "judgements.jsonl").write_text(json.dumps(line) + "\n")
    answers = {row[1]: row[7][0] for row in data_of(page_of(tmp_path, judged, audio="none"))["rows"]}
    assert answers["q0"][10:] == ["answer 1", "Fine.\nRating: 5"]
    assert answers["q1"][10:] == ["answer 1", ""]
