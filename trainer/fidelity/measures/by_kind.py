"""Which measure a kind of target has."""

from coat.manifests import ExpertInfo
from coat.trainer.fidelity.measures.channels import ChannelMeasure
from coat.trainer.fidelity.measures.choices import ChoiceMeasure
from coat.trainer.fidelity.measures.classes import PRESENT, ClassMeasure
from coat.trainer.fidelity.measures.measure import Measure
from coat.trainer.fidelity.measures.pitch import PitchMeasure
from coat.trainer.fidelity.measures.representation import RepresentationMeasure

MEASURES: dict[str, type[Measure]] = {
    "pitch": PitchMeasure,
    "distribution": ChoiceMeasure,
    "representation": RepresentationMeasure,
    "scalars": ChannelMeasure,
}


def measure_of(expert: ExpertInfo, present: float = PRESENT) -> Measure:
    """`present`: from which probability on a class is there."""
    if expert.spec.kind == "probabilities":
        return ClassMeasure(expert, present)
    return MEASURES[expert.spec.kind](expert)
