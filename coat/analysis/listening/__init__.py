"""What a trained student heard in one clip, and what its answer used: `coat listen`.

`session.py` holds the run and is asked clip by clip; `page.py` draws what it gives.
"""
