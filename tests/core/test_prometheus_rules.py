"""The rules file for Prometheus, with Prometheus' own tool: each alert fires and resolves."""

import json
import os
import shutil
import subprocess
from importlib.resources import as_file, files

import pytest

from envoyou_core.alerts.rules import RULES

RULES_FILE = files("envoyou_core.alerts") / "prometheus_rules.yml"
PROMTOOL = shutil.which("promtool")
NAME = '{name="default"}'
DELIVERIES = "envoyou_webhook_deliveries_total"
ATTEMPTS = "envoyou_webhook_attempts_total"
WEEK = 7 * 24 * 60

pytestmark = pytest.mark.skipif(
    PROMTOOL is None and os.environ.get("CI") != "true", reason="promtool is missing: apt-get install prometheus"
)

# The series, and the minutes at which the alert does not fire yet, fires, and has resolved.
ALERTS = {
    "EnvoyouErrorRate": (
        {
            f'{ATTEMPTS}{{handler="welcome",outcome="succeeded"}}': "0+10x60",
            f'{ATTEMPTS}{{handler="welcome",outcome="failed"}}': "0x10 0+5x10 50x40",
        },
        (9, 20, 40),
    ),
    "EnvoyouDeliveryFailures": (
        {f'{DELIVERIES}{{outcome="unavailable",reason="unavailable"}}': "0x10 3x40"},
        (9, 15, 30),
    ),
    "EnvoyouProcessingDelay": ({f"envoyou_inbox_oldest_waiting_seconds{NAME}": "0+60x10 0x10"}, (5, 6, 11)),
    "EnvoyouDeadLetters": ({'envoyou_inbox_events{name="default",status="dead"}': "0x5 2x5 0x5"}, (4, 7, 13)),
    "EnvoyouWaitingForHandler": ({f"envoyou_inbox_waiting_for_handler{NAME}": "0x5 1x10 0x5"}, (9, 12, 17)),
    "EnvoyouSpoolNotEmpty": ({'envoyou_spool_events{instance="web-1",name="default"}': "0x5 1x10 0x5"}, (5, 8, 17)),
    "EnvoyouDisk": ({'envoyou_disk_free_bytes{instance="web-1",name="default"}': "2e9x5 5e8x5 2e9x5"}, (4, 7, 13)),
    "EnvoyouNoWorker": ({f"envoyou_workers_alive{NAME}": "1x5 0x5 1x5"}, (5, 8, 13)),
}


def promtool(*arguments):
    return subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, timeout=60, check=False)


def check(tmp_path, tests, interval="1m"):
    with as_file(RULES_FILE) as rules:
        document = {"rule_files": [str(rules)], "evaluation_interval": interval, "tests": tests}
        # JSON is YAML.
        (tmp_path / "test.yml").write_text(json.dumps(document), encoding="utf-8")
        ended = promtool("test", "rules", str(tmp_path / "test.yml"))
    assert ended.returncode == 0, ended.stdout + ended.stderr


def firing(alert, minute, count, interval=1):
    """Whether so many alerts of the name fire at that minute."""
    fires = f'count(ALERTS{{alertname="{alert}",alertstate="firing"}}) or vector(0)'
    return {"expr": fires, "eval_time": f"{minute * interval}m", "exp_samples": [{"labels": "{}", "value": count}]}


def test_the_rules_are_valid():
    with as_file(RULES_FILE) as rules:
        ended = promtool("check", "rules", str(rules))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "12 rules found" in ended.stdout


def test_there_is_an_alert_for_each_rule_of_our_own():
    names = {"Envoyou" + "".join(map(str.capitalize, name.split("_"))) for name in RULES}
    assert names == {*ALERTS, "EnvoyouSilence", "EnvoyouUnusualVolume"}


def test_each_alert_fires_and_resolves(tmp_path):
    check(
        tmp_path,
        [
            {
                "name": alert,
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": [
                    firing(alert, before, 0),
                    firing(alert, during, 1),
                    firing(alert, after, 0),
                ],
            }
            for alert, (series, (before, during, after)) in ALERTS.items()
        ],
    )


def long_test(alert, values, before, during, after):
    """A test with samples every ten minutes."""
    return {
        "name": alert,
        "interval": "10m",
        "input_series": [{"series": f'{DELIVERIES}{{outcome="accepted",reason=""}}', "values": values}],
        "promql_expr_test": [
            firing(alert, before, 0, 10),
            firing(alert, during, 1, 10),
            firing(alert, after, 0, 10),
        ],
    }


def unusual_hour(change):
    """Two weeks with 12 events in ten minutes, an hour of so many times as many, then 12 again."""
    steps = 2 * WEEK // 10
    end = 12 * steps
    during = 12 * change
    values = f"0+12x{steps} {end + during}+{during}x5 {end + 6 * during}+12x12"
    return long_test("EnvoyouUnusualVolume", values, steps, steps + 6, steps + 15)


def test_alerts_about_volume_fire_and_resolve(tmp_path):
    day = 24 * 6
    silence = f"0+10x{day} {10 * day}x9 {10 * day}+10x6"
    tests = [unusual_hour(10), unusual_hour(0), long_test("EnvoyouSilence", silence, day, day + 9, day + 15)]
    check(tmp_path, tests, interval="30m")
