"""The tiny students and toy shards of the trainer's tests."""

from tests.trainer.conftest import folder, shards_dir, student, student_dir, two_threads

__all__ = ["folder", "shards_dir", "student", "student_dir", "two_threads"]
