"""`coat extract`: the queue of units, the runners (this process, Ray), leases between runs, the log of a run.

status and coat.cli import it. It imports worker, plan, cluster and store, and never status.
"""
