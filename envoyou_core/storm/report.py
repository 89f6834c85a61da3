"""The result of a storm as lines of text, as JSON and as Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from envoyou_core.redaction import one_line
from envoyou_core.storm.comparison import Finding, Outcome

__all__ = ["MEANINGS", "Report"]

SHOWN: Final = 10
"""The findings of each kind that text shows; JSON has all."""

MEANINGS: Final = {
    "lost": "answered 2xx, and its work is not there",
    "doubled": "accepted or processed more than once",
    "accepted": "a forged or stale request that was accepted",
    "unclear": "a forged or stale request that was neither accepted nor refused with 400, 401 or 403",
    "undelivered": "never answered 2xx, and not in the inbox",
    "unfinished": "accepted, and not processed in time",
    "dead": "accepted, and all attempts of its handlers have failed",
}
"""The kinds of findings, and what each means."""

LIMITS: Final = (
    "The storm is seen from outside the application. `lost` and `doubled` compare the platform's record of requests "
    "and answers with the inbox. What a handler does elsewhere, such as an email, is seen only if the application "
    "reports it to `--effects`. An attempt that a kill interrupted may have run its handlers twice, unless their work "
    "is in the inbox's transaction."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A run and its result.

    Attributes:
        run: the id of the run.
        url: where the storm was sent.
        types: the types of its events.
        seed: chose what went wrong.
        restarts: a line about each restart of the server.
        seconds: how long it took.
        outcome: the result.
    """

    run: str
    url: str
    types: Sequence[str]
    seed: int
    restarts: Sequence[str] = field(default=())
    seconds: float = 0.0
    outcome: Outcome

    @property
    def summary(self) -> str:
        """The result in one line."""
        outcome = self.outcome
        counts = Counter(finding.kind for finding in outcome.findings)
        others = [f"{counts[kind]:,} {kind}" for kind in MEANINGS if kind not in {"lost", "doubled"} and counts[kind]]
        refused = f"{outcome.refused:,} refused as they should be"
        return ", ".join(
            [f"{outcome.sent:,} sent", refused, f"{counts['lost']:,} lost", f"{counts['doubled']:,} doubled", *others]
        )

    @property
    def details(self) -> list[str]:
        """Lines about the requests and the attempts."""
        outcome = self.outcome
        lines = [
            f"{outcome.requests:,} requests in {self.seconds:.0f} s: {outcome.repeated:,} answered as duplicates, "
            f"{outcome.unanswered:,} without an answer",
            f"{outcome.processed:,} processed, {outcome.ignored:,} without a handler, "
            f"{outcome.interrupted:,} {'attempt' if outcome.interrupted == 1 else 'attempts'} interrupted by a kill",
        ]
        if hint := self._hint():
            lines.append(hint)
        return lines

    def findings_of(self, kind: str) -> tuple[str, list[str]]:
        """Return what a kind of findings means, and the first findings of it as lines."""
        found = self.outcome.of_kind(kind)
        lines = [f"{finding.event_id}: {one_line(finding.reason)}" for finding in found[:SHOWN]]
        if len(found) > SHOWN:
            lines.append(f"and {len(found) - SHOWN:,} more")
        return f"{len(found):,} {kind}: {MEANINGS[kind]}", lines

    def as_json(self) -> dict[str, Any]:
        """Return the result with all findings."""
        counts = {name: value for name, value in asdict(self.outcome).items() if name != "findings"}
        kinds = Counter(finding.kind for finding in self.outcome.findings)
        return {
            "passed": self.outcome.passed,
            "run": self.run,
            "url": self.url,
            "types": list(self.types),
            "seed": self.seed,
            "seconds": round(self.seconds, 3),
            "restarts": list(self.restarts),
            **counts,
            **{kind: kinds[kind] for kind in MEANINGS},
            "findings": [_as_json(finding) for finding in self.outcome.findings],
        }

    def as_markdown(self) -> str:
        """Return the report for people."""
        lines = [
            f"# {'Passed' if self.outcome.passed else 'Failed'}: {self.summary}",
            "",
            f"- Run: `{self.run}`. The ids of its events begin with `evt_prove_{self.run}_`.",
            f"- URL: `{self.url}`",
            f"- Types: {', '.join(f'`{each}`' for each in self.types)}",
            f"- Seed: {self.seed}",
            *(f"- {line}" for line in self.details),
            *(f"- Restart: {line}" for line in self.restarts),
            "",
            "| finding | meaning | events |",
            "| --- | --- | --- |",
            *(f"| {kind} | {meaning} | {len(self.outcome.of_kind(kind)):,} |" for kind, meaning in MEANINGS.items()),
            "",
        ]
        for kind in MEANINGS:
            title, findings = self.findings_of(kind)
            if findings:
                lines += [f"## {title}", "", *(f"- {line}" for line in findings), ""]
        return "\n".join([*lines, "## Limits", "", LIMITS, ""])

    def _hint(self) -> str:
        outcome = self.outcome
        if len(outcome.of_kind("lost")) == outcome.sent:
            return "None of the events is in the inbox. Does --app name the application that answers at this URL?"
        if len(outcome.of_kind("unfinished")) == outcome.sent:
            return "None of the events is processed. Is a worker running?"
        return ""


def _as_json(finding: Finding) -> dict[str, str]:
    return {"kind": finding.kind, "id": finding.event_id, "reason": one_line(finding.reason)}
