"""What a student's answers use: states of the block or of the audio are replaced or hidden, and the answers read again.

`measuring.py` is the loop, `student.py` what is done to one batch; `figures.py` says what the rows mean.
"""
