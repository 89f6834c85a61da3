"""An ASGI application whose handler leaves one effect for each event, and whose faults `FAULT` names.

The effect is in the inbox's transaction, because only such work is done exactly once when the server is killed.

early: a delivery is answered 200 a second before it is stored.
careless: no signature is checked; each delivery takes effect when it comes, and is answered as a new event.
"""

import asyncio
import os
from pathlib import Path

from sqlalchemy import text

from envoyou_core import Event, WebhookError, WebhookRequest, Webhooks
from envoyou_core.adapter import request_of
from envoyou_core.asgi import webhooks_entry
from envoyou_core.testing import sign_delivery

FAULT = os.environ.get("FAULT", "")
EFFECTS = Path(os.environ["EFFECTS"])
NEW = b'{"received": true}'

webhooks = Webhooks.from_env(spool=False)
tasks = set()


def leave_effect(event_id):
    with EFFECTS.open("a") as file:
        file.write(f"{event_id}\n")


@webhooks.on("user.created")
def keep(event, connection):
    if FAULT != "careless":
        connection.execute(text("CREATE TABLE IF NOT EXISTS effects (event_id TEXT)"))
        connection.execute(text("INSERT INTO effects VALUES (:event_id)"), {"event_id": event.id})


async def nothing_else(scope, receive, send):
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body"})


sound = webhooks_entry(nothing_else, webhooks)


async def store_later(request):
    await asyncio.sleep(1)
    await webhooks.areceive(request)


def without_check(body):
    """What an endpoint does that checks nothing: it takes the body as if it were signed."""
    signed = sign_delivery(Event.from_body(body), secret=os.environ["ENVOYOU_WEBHOOK_SECRET"])
    return WebhookRequest.from_http("POST", signed.headers, signed.body)


async def app(scope, receive, send):
    if not FAULT or scope["type"] != "http" or scope["path"] != "/webhooks/envoyou":
        await sound(scope, receive, send)
        return
    body = b""
    while (message := await receive()).get("more_body"):
        body += message["body"]
    request = request_of(scope, body + message["body"])
    try:
        if FAULT == "careless":
            request = without_check(request.body)
        event = await webhooks.averify(request)
    except WebhookError as error:
        answer = webhooks.refuse(error, request)
        status, content = answer.status, answer.body
    else:
        status, content = 200, NEW
        if FAULT == "early":
            task = asyncio.create_task(store_later(request))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        else:
            leave_effect(event.id)
            await webhooks.areceive(request)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
