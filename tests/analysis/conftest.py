"""The tiny students and toy shards of the trainer's tests."""

from tests.trainer.conftest import folder, one_thread, shards_dir, student, student_dir

__all__ = ["folder", "one_thread", "shards_dir", "student", "student_dir"]
