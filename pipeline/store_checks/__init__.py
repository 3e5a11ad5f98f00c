"""Verification of target stores: what was committed is read back, and compared with what its commits promised.

coat.cli may import it. It knows the store and the processes that it works in: no expert, no other room.
"""
