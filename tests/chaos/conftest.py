"""The corpora of the pipeline's tests."""

from tests.pipeline.conftest import make_corpus

__all__ = ["make_corpus"]
