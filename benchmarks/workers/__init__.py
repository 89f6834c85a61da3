"""The same job for three workers: ours, Celery's and Dramatiq's.

Each module is what its worker imports. It finds its ledger and its queue in the environment, and `enqueue` fills the
queue before the worker starts.
"""
