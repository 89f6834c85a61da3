"""The same job for the workers of envoyou, Celery and Dramatiq.

Each worker imports its module, which reads the ledger and the queue from the environment. `enqueue` fills the queue
before the worker starts.
"""
