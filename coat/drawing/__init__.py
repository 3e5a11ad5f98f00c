"""What all pages and figures share: colours, PNG, HTML, CSS, short texts; and tracks on one time axis, with a player.

Knows no store, run or expert; `text.py` and `panels.py` need no matplotlib.
"""
