"""`coat status` and `coat plan`: what a store holds, what is at work on it, and a forecast of what is left.

coat.cli imports it. No room of coat.pipeline may.
"""
