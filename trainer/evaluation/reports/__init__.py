"""Finished evaluations, read and shown: comparisons, a page, tables. Asks nobody, and runs no code that a folder
names."""
