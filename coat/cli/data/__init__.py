"""Commands of what is on disk: manifests and shard sets."""
