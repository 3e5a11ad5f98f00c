"""Statistics of target sets of any size, out of core: sums, quantiles, components, and a page that shows them.

For the command line and `reductions`. Reads target sets (`store`); knows nothing of shards.
"""
