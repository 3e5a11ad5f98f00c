"""What every expert must hold: `suite.py` runs the checks, on test sounds that are made here.

coat.cli and tests import it. No expert may.
"""
