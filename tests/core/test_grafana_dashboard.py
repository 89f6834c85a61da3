"""The dashboard for Grafana: each of its queries is valid, and names metrics and labels that an exporter exposes."""

import json
import os
import re
import shutil
import subprocess
from importlib.resources import files

import prometheus_client
import pytest

from envoyou_core import PermanentError, WebhookRequest, Webhooks
from envoyou_core.observability import prometheus
from envoyou_core.observability.gauges import GAUGES
from envoyou_core.observability.measurements import COUNTERS, HISTOGRAMS
from envoyou_core.testing import sample_event, sign_delivery

SECRET = "whsec_of_the_dashboard"
PROMTOOL = shutil.which("promtool")
OF_PROMETHEUS = {"instance", "le"}
"""Labels that are not ours."""


@pytest.fixture(scope="module")
def dashboard():
    return json.loads((files("envoyou_core.observability") / "grafana_dashboard.json").read_text(encoding="utf-8"))


@pytest.fixture
def exposed(tmp_path):
    """The labels of each metric that an exporter has exposed, after deliveries and attempts of every kind."""
    registry = prometheus_client.CollectorRegistry()
    webhooks = Webhooks(
        secret=SECRET, inbox=f"sqlite:///{tmp_path}/inbox.db", spool=f"sqlite:///{tmp_path}/spool.db", handoff="manual"
    )
    prometheus.instrument(webhooks, registry)
    webhooks.on("user.created", name="welcome")(lambda event: None)
    webhooks.on("user.updated", name="fails")(lambda event: 1 / 0)

    @webhooks.on("user.deleted", name="gives_up")
    def gives_up(event):
        raise PermanentError("no")

    for type in ("user.created", "user.updated", "user.deleted"):
        delivery = sign_delivery(sample_event(type), secret=SECRET)
        webhooks.receive(WebhookRequest.from_http("POST", delivery.headers, delivery.body))
    webhooks.drain()
    webhooks.spool.open()
    answer = b"".join(
        prometheus.wsgi_app(webhooks, registry=registry)(
            {"REQUEST_METHOD": "GET", "PATH_INFO": "/metrics"}, lambda *_: None
        )
    ).decode()
    webhooks.stop()
    webhooks.inbox.close()
    webhooks.spool.close()
    samples = re.findall(r"^(envoyou_\w+)(?:\{(.*)\})? ", answer, re.MULTILINE)
    return {name: set(re.findall(r'(\w+)="', labels)) for name, labels in samples}


def queries(dashboard):
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def test_every_query_names_metrics_and_labels_that_are_exposed(dashboard, exposed):
    [variable] = [it for it in dashboard["templating"]["list"] if it["type"] == "query"]
    for query in (*queries(dashboard), variable["query"]["query"]):
        named = re.findall(r"\b(envoyou_\w+)(?:\{(.*?)\})?", query)
        assert named, query
        for metric, matchers in named:
            assert metric in exposed, query
            grouped = " ".join(re.findall(r"by \((.*?)\)", query)).replace(",", " ").split()
            labels = {*re.findall(r'(\w+)(?:=|!=|=~|!~)"', matchers), *grouped}
            assert labels <= exposed[metric] | OF_PROMETHEUS, query


def test_every_metric_is_on_the_dashboard(dashboard):
    shown = " ".join(queries(dashboard))
    names = [f"{it.name}_total" for it in COUNTERS] + [f"{it.name}_seconds" for it in HISTOGRAMS]
    assert [name for name in (*names, *(it.name for it in GAUGES)) if name not in shown] == []


def test_panels_do_not_overlap_and_refer_to_the_chosen_source(dashboard):
    taken = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
        assert all(it["datasource"]["uid"] == "${source}" for it in (panel, *panel["targets"]))
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


@pytest.mark.skipif(
    PROMTOOL is None and os.environ.get("CI") != "true", reason="promtool is missing: apt-get install prometheus"
)
def test_every_query_is_valid(dashboard, tmp_path):
    filled = [re.sub(r"\$__\w+", "5m", query).replace("$name", ".*") for query in queries(dashboard)]
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(filled)]
    # JSON is YAML.
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    checked = subprocess.run(
        [PROMTOOL, "check", "rules", str(tmp_path / "rules.yml")], capture_output=True, timeout=60, check=False
    )
    assert checked.returncode == 0, checked.stderr
