"""How sure a score is: intervals, paired differences, McNemar. Knows rows and their sums, no student and no prompt."""
