"""What bites whoever builds a durable inbox, and the mend of each that is taken out to see a test fail."""

from __future__ import annotations

PITFALLS = {
    "The hint blocks the answer": ["the nudge is sent within the request"],
    "The hint comes before the commit": ["the nudge comes before the commit"],
    "A task queue that runs tasks at once runs them inside the request": ["the nudge is sent within the request"],
    "A limited claim takes more than its limit under some plans": ["a limited subquery is asked anew for each row"],
    "A handler that outlasts its lease runs many times": [
        "leases are not renewed",
        "renewing, recording and settling without the lease token",
    ],
    "A poison event kills its worker again and again": ["a crash is not counted", "crashes never end"],
    "Events claimed in a batch wait while their lease runs down": ["what waits in a worker is not held"],
    "A thread started before a fork is not there after it": [
        "a worker started before the fork counts as alive after it",
    ],
    "Lifespans start and stop several times": ["the first of several lifespans to end stops the worker"],
    "Threads need what a framework gives a request": [
        "broken connections are used again",
        "handlers run outside of the application's context",
    ],
    "SQLite: locks, and power cuts": [
        "SQLite transactions begin by reading",
        "SQLite may lose the last commits at a power cut",
    ],
    "The bytes that were verified must be those that are kept": [
        "the bytes that came are written anew",
        "the same id with another body goes unnoticed",
    ],
    "Pruning and resending": [
        "pruning takes what was settled just now",
        "a dead event stays dead when it is delivered again",
    ],
    "A nonce recorded before the event turns a retry into a loss": ["the nonce is bound before the commit"],
}
"""From each to the names of breakages in `table.py`."""
