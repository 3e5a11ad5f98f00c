"""What is done with a finished shard set: verify it, rebuild damaged tars, describe it.

For the command line alone. Nothing is built here that `shards` does not know how to build.
"""
