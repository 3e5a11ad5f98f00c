"""What all pages and figures share: colours, PNG, HTML, CSS, short texts.

Knows no store, target or utterance; `text.py` needs no matplotlib.
"""
