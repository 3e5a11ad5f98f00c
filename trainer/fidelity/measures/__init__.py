"""The measures, one file for each kind of a target: sums of one clip, and figures of sums of many."""
