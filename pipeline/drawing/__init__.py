"""What the pages and figures of `inspect` and `statistics` share: colours, PNG, HTML, CSS, short texts.

Knows no store, target or utterance; `text.py` needs no matplotlib.
"""
