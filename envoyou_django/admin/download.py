"""The download of a payload."""

from __future__ import annotations

import re

from django.http import HttpResponse
from django.utils.http import content_disposition_header

from envoyou_core.adapter import body_bytes

__all__ = ["payload_download"]

MAX_FILENAME = 100
"""Characters of the name in the file name."""


def payload_download(body: object, name: str) -> HttpResponse:
    """Return a stored body exactly as sent, to be saved as a file.

    Args:
        body: the column of a row.
        name: the name of the file, without extension.
    """
    filename = re.sub(r"[^\w.-]", "_", name)[:MAX_FILENAME] + ".json"
    headers = {
        "Content-Disposition": content_disposition_header(as_attachment=True, filename=filename),
        # A payload must never run as a page of this site, whatever type a browser detects.
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "X-Content-Type-Options": "nosniff",
    }
    return HttpResponse(body_bytes(body), content_type="application/json", headers=headers)
