"""What validation found, as values: for its report, its page, and the line that stops a run."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from recsys_core.data.log_facts import LogFacts

EXAMPLES = 3
"""Rows that are shown of those that break a rule: the first ones."""


@dataclass(frozen=True)
class Example:
    """A row that breaks a rule, and what stood there; None where nothing did."""

    source_row: int
    value: str | None


@dataclass(frozen=True)
class RowFinding:
    """How many rows break a rule, and the first of them."""

    rule: str
    rows: int
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class LogFinding:
    """A fact of the log as a whole beside what the card expects; `found` None: it has no such
    fact. `limit` is the least value allowed, or for `at_most` the greatest."""

    rule: str
    found: float | None
    limit: float
    at_most: bool
    held: bool


@dataclass(frozen=True)
class Findings:
    """A log as it came and as it went on; days (rows by day) count from 1970 or the log's start."""

    came: LogFacts
    went: LogFacts
    days_in: dict[int, int]
    days_out: dict[int, int]
    reasons: Counter[str]
    rows: tuple[RowFinding, ...]
    log: tuple[LogFinding, ...]

    @property
    def quarantined(self) -> int:
        return self.came.rows - self.went.rows

    @property
    def broken(self) -> list[LogFinding]:
        """The rules of the log as a whole that do not hold."""
        return [finding for finding in self.log if not finding.held]

    def report(self) -> dict[str, Any]:
        """The facts as JSON."""
        return {
            "rows_in": self.came.rows,
            "rows_out": self.went.rows,
            "quarantined": self.quarantined,
            "quarantined_by_reason": dict(self.reasons),
            "users_in": self.came.users,
            "users_out": self.went.users,
            "items_in": self.came.items,
            "items_out": self.went.items,
            "row_rules": {
                finding.rule: {
                    "rows": finding.rows,
                    "share": finding.rows / self.came.rows,
                    "examples": [vars(example) for example in finding.examples],
                }
                for finding in self.rows
            },
            "log_rules": {
                finding.rule: {
                    "found": finding.found,
                    "at_most" if finding.at_most else "at_least": finding.limit,
                    "held": finding.held,
                }
                for finding in self.log
            },
        }

    def complaint(self, *, page: str, unit_hint: str | None) -> str | None:
        """Why the run must stop, in one line, or None where every rule of the log holds.

        `unit_hint` is the unit that the timestamps seem to have, where it is not the card's.
        """
        if not self.broken:
            return None
        first, *others = self.broken
        found = "nothing to tell it by" if first.found is None else f"{first.found:.4g}"
        bound = f"at {'most' if first.at_most else 'least'} {first.limit:g}"
        unit = f"the timestamps look like {unit_hint}: set time.unit to {unit_hint} in the card"
        if first.rule == "bad_share":
            line = (
                f"{self.quarantined} of {self.came.rows} rows break a rule "
                f"{dict(self._worst())}, the card expects a share of {bound}; look at {page}, "
                "then mend the log or raise expected.bad_share"
            )
        elif first.rule == "unit_fits":
            return f"{unit}; see {page}"
        else:
            line = (
                f"{MEANING[first.rule]}: found {found}, the card expects {bound}; "
                f"{REMEDY[first.rule]}, or change expected.{first.rule} in the card; see {page}"
            )
        if others:
            line += f" (broken too: {', '.join(finding.rule for finding in others)})"
        return line if unit_hint is None else f"{line}; {unit}"

    def _worst(self) -> list[tuple[str, int]]:
        """The three rules that most rows break, and how many do."""
        counts = Counter({finding.rule: finding.rows for finding in self.rows if finding.rows})
        return counts.most_common(3)


MEANING = {
    "bad_share": "share of rows that break a rule",
    "rows": "valid rows",
    "unit_fits": "whether the timestamps look like times in the card's unit",
    "last_day_share": "rows of the last whole day, as a share of the usual day's",
    "items_described": "share of rows whose item has a row of features",
    "users_described": "share of rows whose user has a row of features",
}
"""Each rule of the log as a whole, in words."""

REMEDY = {
    "rows": "look for rows that the export has lost",
    "last_day_share": "wait for the rest of the day's rows, or look for those that were lost",
    "items_described": "deliver the table of items that belongs to this log",
    "users_described": "deliver the table of users that belongs to this log",
}
