"""Targets made smaller: options, the fit to a target set's statistics, and how close the outcome is.

For `shards`. How reduced targets are encoded and decoded is in `coat.manifests.targets`, for whoever reads them.
"""
