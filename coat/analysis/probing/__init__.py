"""What can be read off a student's hidden states by a linear map: states, folds of clips, ridge regression, the page.

`ridge.py` is the regression, in memory and by sums that never hold all states.
"""
