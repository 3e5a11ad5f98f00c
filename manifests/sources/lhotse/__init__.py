"""Lhotse's forms: cuts, recordings with their supervisions, and Shar folders. Each comes down to cuts."""
