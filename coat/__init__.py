"""coat: Continuous Audio Thinking for large audio language models."""

__version__ = "0.1.0"
