"""Tiny students with a block, and questions about clips of unequal length."""

from tests.trainer.conftest import folder, student_dir

__all__ = ["folder", "student_dir"]
