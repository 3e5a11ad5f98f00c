"""One utterance with its sound and every expert's target on one time axis, as an HTML page or a figure.

For the command line alone. Nothing is extracted here, and nothing of shards or statistics is known.
"""
