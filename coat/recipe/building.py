"""A recipe to its stages, in the order of the work. Names of manifests and shards are references; the rest are options.

What is the recipe's own is taken out of each section; what is left over are options of the section's command.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from coat.manifests.corpus.split import stem
from coat.manifests.errors import InputError
from coat.recipe.grammar import Grammar, nearest
from coat.recipe.reading import NUMBER, Recipe, Section
from coat.recipe.stages import CLUSTER_ONLY, LAUNCHED, ON_A_CLUSTER, RANKS, RESOURCES, Place, Stage

NOTES = "stages"  # folder of the notes, in `out`


@dataclass
class Corpus:
    """A manifest of the recipe: the whole, and its parts by name (`corpus.train`)."""

    whole: str
    parts: dict[str, str] = field(default_factory=dict)


class Builder:
    """Stages, as they are declared."""

    def __init__(self, recipe: Recipe, grammar: Grammar, ray_address: str | None) -> None:
        self.recipe, self.grammar, self.ray_address = recipe, grammar, ray_address
        self.stages: list[Stage] = []
        self.corpora: dict[str, Corpus] = {}
        self.left_out: dict[str, str] = {}  # experts that cannot run here, and why
        self.shards: dict[str, str] = {}
        self.experts: dict[str, dict[str, Any]] = {}  # options of each, beside those of all
        self.plan: dict[str, Any] = {}
        self.store = ""

    def add(
        self,
        name: str,
        command: str,
        words: Sequence[str],
        section: Section,
        *,
        values: Mapping[str, Any] | None = None,
        inputs: Sequence[Place] = (),
        outputs: Sequence[Place] = (),
        options: Mapping[str, Any] | None = None,
        **rest: Any,
    ) -> None:
        """`words`: its arguments so far; the options of the section come behind them."""
        given = dict(section.left if options is None else options)
        processes = take_processes(section, given, command)
        on_cluster = self.ray_address is not None and command in ON_A_CLUSTER
        if on_cluster and processes > 1:
            given.setdefault(RANKS[command], processes)
        dropped = () if on_cluster else CLUSTER_ONLY.get(command, ())
        written = {key: value for key, value in given.items() if key not in dropped}
        arguments = [*words, *self.grammar.write(command, section.where, written)]
        self.grammar.write(command, section.where, given)  # mistakes in what is dropped are mistakes, too
        if on_cluster:
            arguments += ["--ray-address", self.ray_address or ""]
        known = {k: v for k, v in given.items() if k not in RESOURCES.get(command, ())}
        if any(name == stage.name for stage in self.stages):
            raise InputError(f"{section.where}: a second stage would be called {name}; give one of them another name")
        self.stages.append(
            Stage(
                name, command, tuple(arguments), {**known, **(values or {})}, tuple(inputs), tuple(outputs),
                processes=1 if on_cluster else processes, plan=self.plan, **rest,
            )
        )  # fmt: skip

    # Manifests

    def add_manifests(self) -> None:
        for name, section in self.recipe.sections("manifests").items():
            path, source, made = section.take("path", str), section.take("import", str), section.take("synthetic", bool)
            if sum(one is not None for one in (path, source, made)) != 1:
                raise InputError(f"{section.where}: expected one of path, import and synthetic")
            shares = section.take("parts", dict)
            by, seed = (section.take("by", str), section.take("seed", int)) if shares else (None, None)
            if made is not None:
                self.add_synthetic(name, section, shares)
                continue
            if path is not None:
                section.close(["path", "parts", "by", "seed"])
                whole = self.recipe.given(path)
            else:
                whole = self.recipe.made(f"manifests/{name}.jsonl")
                origin = self.recipe.given(source or "")
                outputs = [Place("manifest", whole)]
                inputs = [Place("tree", origin, f"source {source}")]
                self.add(
                    f"manifests.{name}", "manifest import", [origin, whole], section, inputs=inputs, outputs=outputs
                )
            self.corpora[name] = Corpus(whole)
            if shares:
                self.add_split(name, section, shares, by, seed)

    def add_split(self, name: str, section: Section, shares: dict[str, Any], by: str | None, seed: int | None) -> None:
        if bad := [key for key, share in shares.items() if not isinstance(share, NUMBER) or isinstance(share, bool)]:
            raise InputError(f"{section.where}.parts.{bad[0]} = {shares[bad[0]]!r}: expected a share, such as 0.9")
        corpus = self.corpora[name]
        folder = self.recipe.made(f"manifests/{name}")
        parts = {part: f"{folder}/{stem(corpus.whole)}.{part}.jsonl" for part in shares}
        words = [corpus.whole, *(f"{part}={share:g}" for part, share in shares.items()), "--out", folder]
        options = {key: value for key, value in (("by", by), ("seed", seed)) if value is not None}
        self.add(
            f"manifests.{name}.split", "manifest split", words, section, options=options, values={"parts": shares},
            inputs=[Place("manifest", corpus.whole)],
            outputs=[Place("manifest", path) for path in (folder, *parts.values())],
        )  # fmt: skip
        self.corpora[name] = Corpus(folder, parts)  # its parts together are the whole

    def add_synthetic(self, name: str, section: Section, shares: Any) -> None:
        if shares:
            raise InputError(f"{section.where}.parts: a synthetic corpus has its own parts, train and heldout")
        folder = self.recipe.made(name)
        parts = {part: f"{folder}/{part}.jsonl" for part in ("train", "heldout")}
        whole = f"{folder}/manifest.jsonl"
        outputs = [Place("manifest", path) for path in (*parts.values(), whole)]
        self.add(f"manifests.{name}", "manifest synthetic", [folder], section, outputs=outputs)
        self.corpora[name] = Corpus(whole, parts)

    def manifest(self, where: str, name: str) -> str:
        """The path of a manifest that the recipe declares: `corpus`, or a part of it: `corpus.train`."""
        known = self.manifest_names()
        if name not in known:
            raise InputError(f"{where} = {name!r}: no manifest of this recipe; {nearest(name, known)}")
        return known[name]

    def manifest_names(self) -> dict[str, str]:
        whole = {name: corpus.whole for name, corpus in self.corpora.items()}
        return whole | {
            f"{name}.{part}": p for name, corpus in self.corpora.items() for part, p in corpus.parts.items()
        }

    # Targets

    def add_targets(self) -> None:
        section = self.recipe.section("extract") or Section(f"{self.recipe.label}: extract", {})
        self.store = self.recipe.made(section.take("store", str) or "targets")
        self.find_experts()
        names = section.take_names("manifests") or self.manifests_of_shards()
        if not self.experts:
            if "extract" in self.recipe.tables or "shards" in self.recipe.tables:
                raise InputError(
                    f"{self.recipe.label}: experts is missing; expected a table for each, such as [experts.pitch]"
                )
            return
        if not names:
            raise InputError(
                f"{section.where}.manifests is missing; expected names of [manifests.NAME], or [shards.NAME]"
            )
        groups = {"": [name for name, own in self.experts.items() if not own]}
        groups |= {name: [name] for name, own in self.experts.items() if own}
        for group, experts in groups.items():
            for manifest in names if experts else ():
                own = self.experts[experts[0]] if group else {}
                parts = [group.rpartition(":")[2]] if group else []
                parts += [manifest] if len(names) > 1 else []
                self.add_extract(".".join(["extract", *parts]), experts, manifest, section, {**section.left, **own})
        self.add_stats()

    def find_experts(self) -> None:
        for name, section in self.recipe.sections("experts").items():
            optional = section.take("optional", bool)
            reason = self.grammar.unusable(name) if optional else None
            if reason:
                self.left_out[name] = reason
            else:
                self.experts[name] = section.left

    def manifests_of_shards(self) -> list[str]:
        """What shards are made of; where all parts of a manifest are, the whole of it."""
        sections = self.recipe.sections("shards").values()
        used = list(dict.fromkeys(name for section in sections for name in section.take_names("manifest") or []))
        found: list[str] = []
        for name in used:
            root = name.partition(".")[0]
            parts = {f"{root}.{part}" for part in self.corpora[root].parts} if root in self.corpora else set()
            found.append(root if parts and parts <= set(used) else name)
        return list(dict.fromkeys(found))

    def add_extract(
        self, name: str, experts: list[str], manifest: str, section: Section, options: dict[str, Any]
    ) -> None:
        path = self.manifest(f"{section.where}.manifests", manifest)
        summary = self.recipe.made(f"{NOTES}/{name}.summary.json")
        words = [word for expert in experts for word in ("--expert", expert)]
        words += ["--manifest", path, "--store", self.store, "--summary", summary]
        own = experts == [name for name in experts if self.experts[name]]
        where = Section(f"{self.recipe.label}: experts.{experts[0]}" if own else section.where, {})
        inputs = [Place("manifest", path)]
        inputs += [Place("file", self.recipe.given(e.rpartition(":")[0]), e) for e in experts if ".py:" in e]
        checkpoint = options.get("checkpoint")
        if isinstance(checkpoint, str) and "://" not in checkpoint:
            inputs.append(Place("tree", self.recipe.given(checkpoint), f"checkpoint {checkpoint}"))
        values = {"experts": experts, **{f"code of {e}": self.grammar.version(e) for e in experts if ".py:" not in e}}
        self.add(
            name, "extract", words, where, options=options, values=values, inputs=inputs,
            outputs=[Place("targets", self.store, name)], experts=tuple(experts), summary=summary,
        )  # fmt: skip

    def add_stats(self) -> None:
        if section := self.recipe.section("stats"):
            page = self.recipe.made("stats.html")
            self.add(
                "stats",
                "stats",
                [self.store, "--report", page],
                section,
                inputs=self.targets(),
                outputs=[Place("page", page)],
            )

    def targets(self, experts: Sequence[str] = ()) -> list[Place]:
        """What is extracted (of these experts): one place for each extraction."""
        return [
            place
            for stage in self.stages
            for place in stage.outputs
            if place.kind == "targets" and (not experts or set(experts) & set(stage.experts))
        ]

    # Shards

    def add_shards(self) -> None:
        for name, section in self.recipe.sections("shards").items():
            manifests = section.take_names("manifest")
            if manifests is None:
                raise InputError(f"{section.where}.manifest is missing; expected a name of [manifests.NAME]")
            paths = [self.manifest(f"{section.where}.manifest", one) for one in manifests]
            experts = section.take_names("experts") or list(self.experts)
            if unknown := [e for e in experts if e not in self.experts and e not in self.left_out]:
                hint = nearest(unknown[0], self.experts)
                raise InputError(f"{section.where}.experts: {unknown[0]}: no expert of this recipe; {hint}")
            experts = [e for e in experts if e in self.experts]
            out = self.recipe.made(section.take("out", str) or f"shards/{name}")
            words = [word for path in paths for word in ("--manifest", path)] + ["--store", self.store, "--out", out]
            self.shards[name] = out
            self.add(
                f"shards.{name}", "build-shards", words, section, values={"experts": experts},
                inputs=[*(Place("manifest", p) for p in paths), *self.targets(experts)],
                outputs=[Place("shards", out)], experts=tuple(experts), alone=not section.left.get("overwrite"),
            )  # fmt: skip

    def shard_set(self, where: str, name: str) -> str:
        """The path of a shard set of the recipe, or of one that there is."""
        if name in self.shards:
            return self.shards[name]
        if "/" in name:
            return self.recipe.given(name)
        raise InputError(f"{where} = {name!r}: no shards of this recipe; {nearest(name, self.shards)}")


def take_processes(section: Section, given: dict[str, Any], command: str) -> int:
    """`processes` of `accelerate launch`; with a Ray address as many ranks."""
    if command not in LAUNCHED or "processes" not in given:
        return 1
    count = given.pop("processes")
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise InputError(f"{section.where}.processes = {count!r}: expected a whole number from 1 on")
    return count
