"""What each extra of coat lacks, and what cannot be done without it. Nothing of them is imported: it takes minutes."""

import importlib.util
import sys
from collections.abc import Iterator

from packaging.requirements import Requirement

from coat.doctor.declared import NAME, declared, installed_version, lack
from coat.doctor.finding import Finding, Request, absent, ok, warning
from coat.extractors.expert import Card
from coat.extractors.registry import EXPERTS, expert_names, find, why_unusable
from coat.manifests.errors import InputError
from coat.manifests.storage.drivers import EXTRAS as DRIVERS

# Modules whose name is not that of their package.
MODULES = {
    "nemo-toolkit": "nemo",
    "scikit-learn": "sklearn",
    "import-linter": "importlinter",
    "megatron-energon": "megatron",
    "mkdocs-material": "material",
    "mkdocstrings-python": "mkdocstrings_handlers",
    "pytest-xdist": "xdist",
}
GIVES = {
    "omni": "student Qwen2.5-Omni or Qwen3-Omni",
    "4bit": "student.quantize",
    "dev": "tests and checks of coat itself",
    "docs": "documentation as a site (make docs)",
}


def look(request: Request) -> Iterator[Finding]:
    cards: dict[str, Card] = {}
    for name in expert_names():
        try:
            cards[name] = find(name).card
        except InputError as e:
            source = "coat itself" if name in EXPERTS else "the package that brings it"
            yield warning(f"expert {name}", str(e), f"reinstall {source}, or what it needs")
    found = declared()
    for extra, needed in (found.extras if found else {}).items():
        yield state_of(extra, needed, {n: c for n, c in cards.items() if c.extra == extra})
    others = {n: why_unusable(c) for n, c in cards.items() if c.extra is None}
    for name, reason in others.items():
        if reason is not None:
            yield warning(f"expert {name}", reason.partition(":")[0], f"{sys.executable} -m pip install {NAME}")
    usable = [n for n, c in cards.items() if why_unusable(c) is None]
    yield ok("experts", f"{len(usable)} of {len(cards)} can run here (`coat experts` lists them)")


def state_of(extra: str, needed: tuple[Requirement, ...], experts: dict[str, Card]) -> Finding:
    """Missing as a whole is absent; missing in part, or too old, is a warning: somebody wanted it."""
    what = f"extra {extra}"
    remedy = f"{sys.executable} -m pip install '{NAME}[{extra}]'"
    lacking = {r.name: text for r in needed if (text := lack(r) or not_importable(r))}
    unusable = [name for name, card in experts.items() if why_unusable(card) is not None]
    without = f"without it: no {gives(extra, list(experts))}"
    if all(installed_version(r.name) is None for r in needed):
        return absent(what, f"not installed; {without}", remedy)
    if lacking or unusable:
        told = ", ".join(f"{name}: {text}" for name, text in lacking.items()) or "a module is missing"
        return warning(what, f"{told}; {without}", remedy)
    return ok(what, ", ".join(f"{r.name} {installed_version(r.name)}" for r in needed))


def not_importable(requirement: Requirement) -> str | None:
    """Installed, by its metadata, and yet not there."""
    name = requirement.name.lower().replace("_", "-")
    module = MODULES.get(name, name.replace("-", "_"))
    try:
        there = importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        there = False
    return None if there else f"installed, but there is no module {module}"


def gives(extra: str, experts: list[str]) -> str:
    schemes = [f"{scheme}://" for scheme, name in DRIVERS.items() if name == extra]
    if experts:
        return f"expert {', '.join(experts)}"
    return GIVES.get(extra) or ("addresses " + ", ".join(schemes) if schemes else extra)
