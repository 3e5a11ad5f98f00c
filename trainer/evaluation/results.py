"""results.json: what an evaluation found, typed and versioned. Equal answers give equal bytes; no times are in it.

{"format": "coat-evaluation/1", "heading": "...", "subject": {...}, "benchmarks": {"mmau": {"rows": 1000,
 "missing": 0, "unparsed": 3, "scores": {"official": {"accuracy": 0.59}, "strict": {"accuracy": 0.61}},
 "groups": {"task": {"sound": {...}}}, ...}}, "hearing": {...}}
"""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from coat.manifests import InputError, storage
from coat.manifests.errors import one_line

FORMAT = "coat-evaluation/1"
RESULTS = "results.json"
Figures = dict[str, float]  # by metric; accuracy and rates are 0..1
Interval = tuple[float, float]


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Scores(Part):
    official: Figures
    strict: Figures


class Intervals(Part):
    """95 %, by bootstrap; see `method`."""

    official: dict[str, Interval] = {}
    strict: dict[str, Interval] = {}
    method: str = ""


class Counts(Part):
    """Of rows. All but `unscored` ones are in every denominator.

    `missing`: no answer, for whatever reason; of these `failed` have an error. `empty`: answered with nothing.
    `unparsed`: answered with something in which the strict rule finds no single choice. `cut`: at the limit of tokens.
    """

    rows: int
    missing: int = 0
    failed: int = 0
    empty: int = 0
    unparsed: int = 0
    unscored: int = 0  # they need a judge, and there was none: not in the denominators
    cut: int = 0
    chance: float | None = None  # accuracy of choosing evenly among the choices; None: there are none
    scores: Scores
    intervals: Intervals = Intervals()


class PromptUsed(Part):
    name: str
    text: str
    choice: str
    between: str
    open: str
    at_least: int = 0


class PublishedFigure(Part):
    model: str
    value: float
    metric: str
    where: str
    read: bool


class Orders(Part):
    """Of rows with choices that were asked in `orders` orders, the row's own among them; by the strict rule."""

    orders: int
    rows: int
    accuracy: float  # over all orders
    consistency: float  # share of rows whose choice is one and the same text in all orders
    by_position: list[float]  # how often the choice at each position is chosen, of parsed answers
    expected: list[float]  # how often the right one stood there
    bias: float  # half of the summed differences between these two: 0 none, 1 whole


class Leaks(Part):
    """Ids of rows whose audio, or whose question, lies in training shards. `not_compared`: rows without sound here."""

    shards: list[str]
    samples: int
    audio: list[str]
    question: list[str]
    not_compared: int = 0


class Judged(Part):
    model: str
    prompt: str
    version: str
    rows: int
    unparsed: int
    prompt_tokens: int
    answer_tokens: int


class BenchmarkResults(Counts):
    version: str
    licence: str
    source: str
    revision: str
    data: str  # digest of the rows
    data_known: str  # which official data that is; "": other rows
    metrics: list[str]  # the first is the headline
    template: PromptUsed | None  # None: someone else asked
    max_new_tokens: int | None = None
    baselines: dict[str, Scores] = {}  # trivial ones, by name
    groups: dict[str, dict[str, Counts]] = {}  # by key and value
    published: list[PublishedFigure] = []
    orders: Orders | None = None
    leaks: Leaks | None = None
    judge: Judged | None = None


class Hearing(Part):
    """The guard: rows asked again, with another row's audio and with silence (so many of each were answered).

    `changed`: other answers than before.
    """

    rows: int
    other_audio: int
    changed_by_other_audio: int
    silence: int
    changed_by_silence: int
    hears: bool


class Subject(Part):
    """Who answered. `digest`: of the weights, where they are at hand."""

    kind: Literal["run", "student", "server", "predictions"]
    source: str
    model_type: str = ""
    step: int | None = None
    digest: str = ""
    block_positions: int | None = None
    dtype: str = ""
    generation: dict[str, Any] = {}


class Results(Part):
    format: Literal["coat-evaluation/1"] = FORMAT
    heading: str  # the first line that is shown; says first if the model does not hear
    subject: Subject
    benchmarks: dict[str, BenchmarkResults] = Field(min_length=1)
    hearing: Hearing | None = None  # None: not asked again

    @classmethod
    def read(cls, folder: str | Path) -> Self:
        """Of an evaluation's folder. InputError where there is none, or of another version."""
        file = Path(folder) / RESULTS
        if not file.exists():
            raise InputError(f"{folder}: no {RESULTS}; expected a folder that `coat evaluate` has finished")
        data = storage.read_json(str(file))
        found = data.get("format") if isinstance(data, dict) else None
        if found != FORMAT:
            raise InputError(f"{file}: format {found!r}; this coat reads {FORMAT}: score again with --rescore {folder}")
        try:
            return cls.model_validate(data)
        except ValidationError as e:
            raise InputError(f"{file}: not a whole result ({one_line(e)})") from e

    def write(self, folder: Path) -> None:
        storage.write_bytes(str(folder / RESULTS), storage.to_json(self.model_dump(mode="json")))
