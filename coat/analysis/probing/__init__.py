"""What can be read off a student's hidden states by a linear map: states, folds of clips, regressions, the page.

`ridge.py` (in memory) and `moments.py` (by sums) predict numbers, `logistic.py` tells words apart; the latter two never
hold all states.
"""
