"""The pages of the site that are made of the code: nothing is left out, and what is written by hand still fits."""

import html
import re
from collections.abc import Iterator

import pytest
from pydantic import BaseModel

from coat.trainer.config.train_config import TrainConfig
from docs.making import cli_reference, config_reference, drawings, error_page, markdown, notebooks, python_reference
from docs.making.messages import Message, messages, sources
from tests.integration.helpers import ROOT, coat


def test_every_option_of_every_command_is_on_its_page() -> None:
    pages = cli_reference.pages()
    missing = []
    for panel, commands in cli_reference.panels().items():
        text = pages[f"{cli_reference.FOLDER}/{cli_reference.slug(panel)}.md"]
        for name, command in commands.items():
            for full, leaf in cli_reference.leaves(name, command):
                section = text.split(f"## coat {full}\n")[1].split("\n## ")[0]
                missing += [
                    f"{full} {o}" for p in leaf.params for o in p.opts if o.startswith("-") and f"`{o}`" not in section
                ]
                assert re.search(r"^coat ", section, flags=re.MULTILINE), f"coat {full}: no example"
    assert missing == []
    assert sum(page.count("\n## coat ") for page in pages.values()) > 25


def models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield model
    for field in model.model_fields.values():
        if config_reference.is_nested(field.annotation):
            yield from models(config_reference.model_of(field.annotation))


def test_every_key_of_the_config_has_a_meaning() -> None:
    page = config_reference.page()
    for field in TrainConfig.model_fields.values():
        for model in models(config_reference.model_of(field.annotation)):
            said = config_reference.meanings(model)
            for key in model.model_fields:
                assert len(said[key]) > 5, f"{model.__name__}.{key}: no comment in trainer/config/sections.py"
                assert f"| `{key}` |" in page
    assert "| `lr` | number above 0 | `0.0001` | with `--change` | Of LoRA" in page


def test_every_error_line_is_on_the_page() -> None:
    page = html.unescape(error_page.page())
    found = messages()
    assert len(found) > 500
    assert [m for m in found if m.text not in page] == []
    # The same by another way: what the source writes first behind `raise InputError(`, up to a value or a quote.
    literal = re.compile(r'raise (?:InputError|RunError|EnvironmentFault|ReadFault)\(\s*f?"([^"{\\]{12,})')
    written = {text for file in sources() for text in literal.findall((ROOT / file).read_text(encoding="utf-8"))}
    assert len(written) > 60
    assert [text for text in written if text not in page] == []


@pytest.mark.parametrize("advice", error_page.advice(), ids=lambda a: a.match[:40])
def test_advice_is_about_a_line_that_is_still_there(advice: error_page.Advice) -> None:
    assert [m for m in messages() if advice.match in m.text] != []
    for link in re.findall(r"\]\(\.\./([\w/-]+\.md)", advice.do):
        assert (ROOT / "docs" / link).exists()


def fitting(line: str) -> list[Message]:
    """As docs/assets/errors.js finds them: what has most of its own letters in the line, first."""
    fits = [m for m in messages() if re.search(m.pattern.replace("[^]", "[\\s\\S]"), line)]
    return sorted(fits, key=lambda m: -m.literal)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("manifest", "stats", "none.jsonl"), "no such manifest"),
        (("experts", "--check", "nobody"), "--expert ‹name›: no such expert"),
        (("train", "--student", "s", "--shards", "x", "--out", "r", "--set", "optim.lr"), "expected key=value"),
        (("report", "e"), "nothing to write: give --out report.html"),
        (("evaluate", "--data", "m.jsonl", "--out", "e"), "expected one of --run, --student"),
    ],
)
def test_a_line_that_is_pasted_finds_its_entry(arguments: tuple[str, ...], expected: str) -> None:
    said = coat(*arguments, status=2).stderr.strip().splitlines()[-1]
    found = fitting(said.removeprefix("error: "))
    assert found, said
    assert expected in found[0].text


@pytest.mark.parametrize("name", drawings.DRAWINGS)
def test_a_drawing_is_what_its_script_draws(name: str) -> None:
    drawn = drawings.DRAWINGS[name]()
    assert (drawings.FOLDER / f"{name}.svg").read_text(encoding="utf-8") == drawn.svg(), (
        "python -m docs.making.drawings"
    )
    numbers = re.findall(r'(?<![\w-])(x|y|x1|y1|x2|y2)="([\d.]+)"', drawn.svg())
    assert all(float(v) <= (drawn.width if axis[0] == "x" else drawn.height) for axis, v in numbers), "outside"


def test_notebooks_become_pages() -> None:
    pages = notebooks.pages()
    assert len(pages) == 3
    for path, text in pages.items():
        assert text.startswith("# ")
        assert text.count("```python\n") >= 4
        for picture in re.findall(r"!\[.*?\]\(([\w.-]+)\)", text):
            assert (ROOT / "docs" / path).with_name(picture).exists()


def test_python_names_are_found_where_they_are_defined() -> None:
    for package in python_reference.PACKAGES:
        for path in (*python_reference.names(package).values(), *python_reference.CONTRACTS.get(package, ())):
            module, _, name = path.rpartition(".")
            file = ROOT / (module.removeprefix("coat.").replace(".", "/") + ".py")
            assert re.search(rf"^(?:class|def) {name}\b|^{name}\b.*=", file.read_text(), flags=re.MULTILINE), path


def test_lists_begin_behind_a_blank_line() -> None:
    text = "Text:\n- one\n  more\n- two\n\n```sh\n- not\n- these\n```\n<!-- not run: because -->\n```python\n1\n```\n"
    assert markdown.for_python_markdown(text) == (
        "Text:\n\n- one\n  more\n- two\n\n```sh\n- not\n- these\n```\n```python\n1\n```\n"
    )


def test_the_site_is_built_strictly() -> None:
    """MkDocs counts no warning that is not shown, and then ends well whatever is broken."""
    config = (ROOT / "mkdocs.yml").read_text()
    assert "strict: true" in config
    assert {"not_found: warn", "anchors: warn", "unrecognized_links: warn", "omitted_files: warn"} <= set(
        re.findall(r"\w+: warn", config)
    )
    (line,) = re.findall(r"^\t.*-m mkdocs build.*$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert not {"--quiet", "-q", "--no-strict"} & set(line.split())
