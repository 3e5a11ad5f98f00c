"""Does a server say what the run says? Both are asked the same things, and every difference is shown.

check.py      both are asked, and compared row by row      questions.py   what is asked
difference.py where two answers part, and how sure the run was there

Only the command line and benchmarks import it. It starts no server.
"""
