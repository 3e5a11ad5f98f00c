"""From a manifest to units of work: which rows are still to be extracted, and how they are cut.

worker, extraction and status import it. It imports store alone, and never an expert.
"""
