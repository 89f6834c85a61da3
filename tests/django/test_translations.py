"""Tests of the German translation."""

import ast
import gettext
import re
from pathlib import Path

import pytest
from django.urls import reverse
from django.utils.translation.template import templatize

import envoyou_django
from envoyou_core.inbox import Status
from envoyou_core.inbox.history import INTERRUPTED

PACKAGE = Path(envoyou_django.__file__).parent
GERMAN = PACKAGE / "locale/de/LC_MESSAGES/django.mo"
MARKS = {"_", "gettext", "gettext_lazy", "ngettext", "ngettext_lazy"}


def marked_in_python(source):
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in MARKS:
            yield from (text.value for text in node.args if isinstance(text, ast.Constant))


def marked():
    """All texts that are marked for translation; those with a plural have a number as well."""
    for path in PACKAGE.rglob("*.py"):
        yield from marked_in_python(path.read_text())
    literal = r"""u?'(?:[^'\\]|\\.)*'|u?"(?:[^"\\]|\\.)*\""""
    for path in PACKAGE.rglob("*.html"):
        for texts in re.findall(rf"gettext\(({literal})(?:,\s*({literal}))?", templatize(path.read_text())):
            yield from (ast.literal_eval(text) for text in texts if text)
    yield from (status.value for status in Status)
    yield INTERRUPTED


def test_every_marked_text_is_translated():
    with GERMAN.open("rb") as file:
        catalogue = gettext.GNUTranslations(file)._catalog
    known = {key[0] if isinstance(key, tuple) else key for key, text in catalogue.items() if text}
    plurals = re.findall(r'^msgid_plural "(.*)"$', GERMAN.with_suffix(".po").read_text(), flags=re.MULTILINE)
    texts = {text for text in marked() if isinstance(text, str)}
    assert len(texts) > 100
    assert texts - known - set(plurals) == set()


def test_placeholders_are_kept():
    with GERMAN.open("rb") as file:
        catalogue = gettext.GNUTranslations(file)._catalog
    for key, text in catalogue.items():
        original = key[0] if isinstance(key, tuple) else key
        if original:
            assert re.findall(r"%\(\w+\)s|%d|%%", text) == re.findall(r"%\(\w+\)s|%d|%%", original)


@pytest.mark.django_db
def test_the_admin_in_german(admin_client, settings):
    settings.LANGUAGE_CODE = "de"
    page = admin_client.get(reverse("admin:envoyou_django_processedevent_changelist")).content.decode()
    for text in ("Letzte 24 Stunden: 0 empfangen", "Handlungsbedarf", "Alle Zeiten gelten in der Zeitzone"):
        assert text in page
