"""What programs between the sender and the verification do to a body: each rewrite is undone or repeated here.

A body that was changed cannot be verified. If one of these forms of it can, the change is known.
"""

from __future__ import annotations

import json
import unicodedata
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

__all__ = ["MAX_REWRITTEN", "rewritten_bodies"]

MAX_REWRITTEN: Final = 1_048_576
"""Bytes. No forms of a larger body are computed."""

BOM: Final = b"\xef\xbb\xbf"

_FORMATS: Final = {
    "gzip": 16 + zlib.MAX_WBITS,
    "deflate": zlib.MAX_WBITS,
    "deflate without a header": -zlib.MAX_WBITS,
}
"""The formats of the content encodings gzip and deflate, and the window sizes by which zlib knows them."""

_LEVELS: Final = (6, 9, 1)

_SEPARATORS: Final = {
    "without spaces, as JavaScript's JSON.stringify writes it": (None, (",", ":")),
    "with a space after each comma and colon, as Python's json.dumps writes it": (None, (", ", ": ")),
    "with an indentation of 2 spaces": (2, (",", ": ")),
    "with an indentation of 4 spaces": (4, (",", ": ")),
    "with an indentation of a tab": ("\t", (",", ": ")),
}


def rewritten_bodies(body: bytes) -> Iterator[tuple[str, str, bytes]]:
    """Yield the kind of a change, how the body would have to be, and that body.

    The kinds are `compressed`, `decompressed`, `white_space`, `json`, `unicode` and `encoding`.
    """
    if not body or len(body) > MAX_REWRITTEN:
        return
    yield from _decompressed(body)
    yield from _with_other_ends(body)
    yield from _as_other_json(body)
    yield from _with_other_characters(body)
    yield from _compressed(body)


def _decompressed(body: bytes) -> Iterator[tuple[str, str, bytes]]:
    for name, window in _FORMATS.items():
        with suppress(zlib.error):
            # Bounded, because a few bytes may be compressed gigabytes.
            decompressor = zlib.decompressobj(window)
            plain = decompressor.decompress(body, MAX_REWRITTEN)
            if decompressor.eof:
                yield "compressed", f"decompressed by {name}", plain


def _compressed(body: bytes) -> Iterator[tuple[str, str, bytes]]:
    """Yield what compressors write by their usual settings. Others cannot be repeated."""
    for name, window in _FORMATS.items():
        for level in _LEVELS:
            compressor = zlib.compressobj(level, zlib.DEFLATED, window)
            packed = compressor.compress(body) + compressor.flush()
            for form in (packed, packed[:9] + b"\xff" + packed[10:]) if name == "gzip" else (packed,):
                # The tenth byte of gzip names the operating system, or is 255.
                yield "decompressed", f"compressed by {name}", form


def _with_other_ends(body: bytes) -> Iterator[tuple[str, str, bytes]]:
    changed = {
        "without the white space around it": body.strip(),
        "with a line feed at its end": body.rstrip(b"\r\n") + b"\n",
        "with CR LF at its end": body.rstrip(b"\r\n") + b"\r\n",
        "without the byte order mark at its beginning": body.removeprefix(BOM),
        "with LF instead of CR LF": body.replace(b"\r\n", b"\n"),
        "with CR LF instead of LF": body.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"),
    }
    yield from (("white_space", how, form) for how, form in changed.items() if form != body)


def _as_other_json(body: bytes) -> Iterator[tuple[str, str, bytes]]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return
    for spacing, (indent, separators) in _SEPARATORS.items():
        for order, sort_keys in (("", False), (" and with sorted members", True)):
            for characters, is_ascii in (("", False), (" and with \\u escapes for characters beyond ASCII", True)):
                written = _dump(document, indent, separators, sort_keys=sort_keys, is_ascii=is_ascii)
                for slashes, form in (("", written), (" and with \\/ for slashes", written.replace("/", "\\/"))):
                    encoded = form.encode("utf-8", "surrogatepass")
                    if encoded != body:
                        yield "json", spacing + order + characters + slashes, encoded


def _dump(
    document: Any, indent: int | str | None, separators: tuple[str, str], *, sort_keys: bool, is_ascii: bool
) -> str:
    return json.dumps(document, indent=indent, separators=separators, sort_keys=sort_keys, ensure_ascii=is_ascii)


def _with_other_characters(body: bytes) -> Iterator[tuple[str, str, bytes]]:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        yield "encoding", "in UTF-8 instead of Latin-1", body.decode("latin-1").encode()
        return
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        if (normalised := unicodedata.normalize(form, text)) != text:
            yield "unicode", f"in the Unicode normalisation form {form}", normalised.encode()
    try:
        narrow = text.encode("latin-1")
    except UnicodeEncodeError:
        return
    # In Latin-1, ASCII is the same.
    if narrow != body:
        yield (
            "encoding",
            "encoded to UTF-8 once and not twice" if _is_utf8(narrow) else "in Latin-1 instead of UTF-8",
            narrow,
        )


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True
