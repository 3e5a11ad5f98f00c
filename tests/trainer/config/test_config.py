"""Configs: what is wrong is named in one line with its key and file."""

from pathlib import Path

import pytest

from coat.manifests import InputError
from coat.trainer import TrainConfig, train
from coat.trainer.config.resume import changes
from coat.trainer.tiny_students.make import make_tiny_student

ROOT = Path(__file__).parents[3]
CONFIGS = sorted((ROOT / "configs").glob("*.toml"))
STUDENTS = {
    "qwen2-audio-7b": "qwen2-audio", "qwen2.5-omni-7b": "qwen2.5-omni", "audio-flamingo-3": "audio-flamingo-3",
}  # fmt: skip
LEAST = '[student]\npath = "s"\n[data]\nshards = "d"\n[run]\nout = "o"\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "train.toml"
    path.write_text(LEAST)
    return path


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.name)
def test_our_own_configs_are_read(path: Path) -> None:
    config = TrainConfig.read(str(path), ["student.path=s", "data.shards=d", "run.out=o"])
    assert config.steps == sum(s.steps for s in config.stages)


@pytest.mark.parametrize("profile", [None, "8x80gb", "tiny-cpu"])
@pytest.mark.parametrize("name", STUDENTS)
def test_a_dry_run_of_every_student_and_profile(
    name: str, profile: str | None, shards_dir: Path, tmp_path: Path
) -> None:
    """Two steps with a tiny student of its kind, in bf16 as a GPU has it: what the configs say, their parts take."""
    student = make_tiny_student(tmp_path / "student", name=STUDENTS[name])
    paths = [str(ROOT / "configs" / f"{name}.toml")]
    paths += [str(ROOT / "configs" / "profiles" / f"{profile}.toml")] if profile else []
    places = [f"student.path={student}", f"data.shards={shards_dir}", f"run.out={tmp_path / 'run'}"]
    places += [] if profile == "tiny-cpu" else ["run.precision=bf16"]
    config = TrainConfig.read(paths, [*places, "stages.0.steps=1", "stages.1.steps=1", "data.batch_size=1"])
    assert config.run.accumulate == (8 if profile is None else 1)
    assert config.heads.dim == (32 if profile == "tiny-cpu" else 256)
    assert train(config).finished


def test_a_later_config_lies_over_an_earlier_one(file: Path, tmp_path: Path) -> None:
    above = tmp_path / "above.toml"
    above.write_text('[run]\nkeep = 7\n[[stages]]\nname = "only"\nsteps = 3\n[losses.weights]\nmel = 2.0\n')
    config = TrainConfig.read([str(file), str(above)], ["run.keep=8"])
    assert (config.run.out, config.run.keep, config.steps, config.losses.weights) == ("o", 8, 3, {"mel": 2.0})
    above.write_text("[run]\nkep = 7\n")
    with pytest.raises(InputError, match=r"train\.toml and .*above\.toml: unknown key run\.kep"):
        TrainConfig.read([str(file), str(above)])


def test_there_are_configs() -> None:
    assert {"tiny.toml", "qwen2-audio-7b.toml", "quickstart.toml"} <= {p.name for p in CONFIGS}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.speed=3", "unknown key optim.speed"),
        ("nothing=3", "unknown key nothing"),
        ("optim.lr=fast", "optim.lr = 'fast'"),
        ("optim.lr=-1", "optim.lr = -1"),
        ("thinking.placement=middle", "thinking.placement = 'middle'"),
        ('heads.groups={a=["mel"], b=["mel"]}', "mel in two groups"),
        ("losses.families.sound=1", "losses.families.sound"),
        ("heads.dim=30", "dim 30 must be a multiple of twice the heads"),
        ("losses.weights.mel=-1", "losses.weights.mel = -1"),
        ("stages=[]", "stages"),
        ("run.out=s3://b/run", "expected a local folder"),
        ("optim", "expected key=value"),
        ("student.path.x=1", "path is a value, not a table"),
    ],
)
def test_mistakes_are_one_line(file: Path, override: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        TrainConfig.read(str(file), [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_file_is_named(file: Path) -> None:
    file.write_text(LEAST + "[optim]\nlr = true\nfoo = 1\n")
    with pytest.raises(InputError, match=r"train\.toml: unknown key optim\.foo"):
        TrainConfig.read(str(file))
    file.write_text("[student")
    with pytest.raises(InputError, match=r"train\.toml: not TOML"):
        TrainConfig.read(str(file))
    with pytest.raises(InputError, match="no such config"):
        TrainConfig.read(str(file) + "x")


def test_overrides_reach_tables_and_lists(file: Path) -> None:
    file.write_text(LEAST + '[[stages]]\nname = "a"\nsteps = 5\n')
    config = TrainConfig.read(
        str(file), ["stages.0.steps=7", "optim.lr=1e-5", "thinking.placement=before_response", 'heads.experts=["a"]']
    )
    assert (config.steps, config.optim.lr, config.thinking.placement) == (7, 1e-5, "before_response")
    assert config.heads.experts == ("a",)


def test_toml_round_trip(file: Path) -> None:
    config = TrainConfig.read(str(file), ["losses.weights.mel=0.5", 'data.transcribe_prompt="A \\"b\\"\\n é"'])
    file.write_text(config.to_toml())
    assert TrainConfig.read(str(file)) == config


def test_stages_may_be_set_without_a_file() -> None:
    needed = ["student.path=s", "data.shards=d", "run.out=r"]
    config = TrainConfig.read(None, [*needed, "stages.0.steps=7"])
    assert [s.steps for s in config.stages] == [7, TrainConfig.read(None, needed).stages[1].steps]


@pytest.mark.parametrize(
    ("override", "rule"),
    [
        ("optim.lr=1", "with_change"),
        ("optim.ema=0.5", "fixed"),
        ("losses.weights.mel=2.0", "with_change"),
        ("stages.1.ce=0.5", "with_change"),
        ('stages=[{name="only", steps=1}]', "with_change"),
        ("run.precision=no", "with_change"),
        ("run.seed=1", "fixed"),
        ("data.batch_size=1", "with_change"),
        ("data.shuffle=1", "with_change"),
        ("data.seed=1", "fixed"),
        ("data.shards_ahead=1", None),
        ('heads.groups={a=["mel"]}', "fixed"),
        ("run.keep=9", None),
        ("data.workers=0", None),
        ("evaluation.every=7", None),
    ],
)
def test_each_key_says_what_a_resumed_run_may_do_with_it(file: Path, override: str, rule: str | None) -> None:
    changed = changes(TrainConfig.read(str(file)), TrainConfig.read(str(file), [override]))
    assert {change.on_resume for change in changed} == ({rule} if rule else set())
