"""One worker: takes a unit, decodes its audio, runs the expert, commits the frames.

extraction and status import it. It imports decoding, plan and store, and knows neither queue nor Ray.
"""
