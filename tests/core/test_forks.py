"""Locks that a thread of the parent holds at a fork."""

import os
import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@pytest.mark.parametrize("handoff", ["auto", "a function"])
def test_a_lock_held_at_the_fork_does_not_block_the_child(handoff):
    script = """
        import os, sys, threading, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from envoyou_core import WebhookRequest, Webhooks
        from envoyou_core.testing import sample_event, sign_delivery

        done = threading.Event()
        handoff = (lambda event_id: done.set()) if sys.argv[1] == "a function" else "auto"
        webhooks = Webhooks(secret="whsec_test", inbox="memory:", handoff=handoff)
        webhooks.on("*")(lambda event: done.set())
        held = [webhooks._lock, webhooks._handoff._lock, webhooks._reception.nonces._lock]
        if webhooks._announcer is not None:
            held += [webhooks._announcer._waker._lock, webhooks._announcer._timer._lock]
        for lock in held:
            lock.__enter__()
        child = os.fork()
        if child == 0:
            delivery = sign_delivery(sample_event(), secret="whsec_test", nonce="nonce-1")
            answer = webhooks.receive(WebhookRequest.from_http("POST", delivery.headers, delivery.body))
            os._exit(0 if answer.status == 200 and done.wait(20) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), handoff],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
