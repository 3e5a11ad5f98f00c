"""Transcripts made comparable, and their word and character error rates.

Knows no benchmark and no student: texts go in, texts and counts come out.
"""
