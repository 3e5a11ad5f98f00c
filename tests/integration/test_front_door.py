"""What a stranger finds beside the code: issue templates, CONTRIBUTING, SECURITY, CITATION."""

import re
from pathlib import Path

import pytest
import yaml

import coat
from tests.integration.helpers import ROOT

TEMPLATES = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
FORMS = [path for path in TEMPLATES if path.name != "config.yml"]
FIELDS = {  # of GitHub's form schema: what each kind of a field must have, and may have
    "markdown": ({"value"}, set()),
    "textarea": ({"label"}, {"description", "placeholder", "value", "render"}),
    "input": ({"label"}, {"description", "placeholder", "value"}),
    "dropdown": ({"label", "options"}, {"description", "multiple", "default"}),
}


@pytest.mark.parametrize("path", FORMS, ids=lambda p: p.stem)
def test_a_form_is_one_that_github_takes(path: Path) -> None:
    form = yaml.safe_load(path.read_text())
    assert form.keys() <= {"name", "description", "title", "labels", "assignees", "body"}
    assert all(form[key] for key in ("name", "description", "body"))
    for field in form["body"]:
        must, may = FIELDS[field["type"]]
        assert must <= field["attributes"].keys() <= must | may
        assert field["type"] == "markdown" or re.fullmatch(r"[\w-]+", field["id"])
        assert field.keys() <= {"type", "id", "attributes", "validations"}
        assert field.get("validations", {}).keys() <= {"required"}
    ids = [field["id"] for field in form["body"] if "id" in field]
    assert len(set(ids)) == len(ids)
    labels = [field["attributes"]["label"] for field in form["body"] if "label" in field["attributes"]]
    assert len(set(labels)) == len(labels) > 1


def test_there_is_a_form_for_each_thing() -> None:
    assert {path.stem for path in FORMS} == {"bug", "expert", "student", "benchmark"}
    bug = yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE/bug.yml").read_text())
    (report,) = [field for field in bug["body"] if field.get("id") == "doctor"]
    assert "`coat doctor --json`" in report["attributes"]["label"]
    assert report["validations"]["required"] is True


def test_the_citation_is_of_this_version() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["version"] == coat.__version__
    assert {"cff-version", "message", "title", "authors", "license", "references"} <= cited.keys()
    (paper,) = cited["references"]
    assert {"type", "title", "authors"} <= paper.keys()
    assert paper["url"].endswith("2606.18273")


def test_contributing_names_commands_that_exist() -> None:
    text, makefile = (ROOT / "CONTRIBUTING.md").read_text(), (ROOT / "Makefile").read_text()
    lines = re.findall(r"^([\w-]+):", makefile, flags=re.MULTILINE)
    targets = set(lines)
    assert len(lines) == len(targets), "a target has two recipes: the first one is dropped"
    (phony,) = re.findall(r"^\.PHONY: (.*)", makefile, flags=re.MULTILINE)
    assert set(phony.split()) == targets, "make says of a target without a recipe that there is nothing to do"
    named = set(re.findall(r"`make ([\w-]+)`", text))
    assert {"check", "test", "chaos"} <= named <= targets
    rooms = re.findall(r"^\| .* \| `([\w/]+/)`", text, flags=re.MULTILINE)
    assert len(rooms) >= 15
    assert [room for room in rooms if not (ROOT / room).is_dir()] == []


def test_links_of_the_front_door_lead_somewhere() -> None:
    for page in ("CONTRIBUTING.md", "SECURITY.md", "README.md"):
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / page).read_text()):
            assert (ROOT / link).exists(), f"{page}: {link}"
