"""Guards the door: rows that break a rule go to quarantine, with the rules' names; the others pass.

The rules are Great Expectations objects, and their own results say which rows they reject. Then
the log as a whole is judged in the same way. A log that is not what its card expects stops the
run, after everything that was found is written.
"""

import logging
import math
import shutil
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recsys_core.artifacts import atomic_path, read_json, write_json
from recsys_core.columns import (
    CONTEXT,
    DAYS_AHEAD,
    FINITE_VALUE,
    ITEM_ID,
    REASON,
    REPEATS,
    SOURCE_ROW,
    TIMESTAMP,
    USER_ID,
    VALUE,
)
from recsys_core.data.cards import DatasetCard, read_resolved_card
from recsys_core.data.duck import open_duckdb
from recsys_core.data.log_facts import (
    LogFacts,
    described_share,
    find_repeats,
    last_day_share,
    log_facts,
    repeats_of,
    rows_per_day,
)
from recsys_core.errors import DataError
from recsys_core.layout import Layout
from recsys_core.sections_of_data import Validate
from recsys_core.tables import INTERACTIONS, VALID_INTERACTIONS, read_batches, table_writer
from tasks.door import Door, Rule, judge, open_door
from tasks.findings import EXAMPLES, Example, Findings, LogFinding, RowFinding
from tasks.future import Future, future_of
from tasks.rules import UNIT_FITS, log_rules, row_rules
from tasks.step import main
from tasks.validation_page import validation_page

logger = logging.getLogger(__name__)

LONGEST_EXAMPLE = 80


def run(*, layout: Layout, validate: Validate) -> None:
    card = read_resolved_card(layout.resolved_card)
    found = pa.schema([*INTERACTIONS, *card.context_fields])
    if next(read_batches(layout.interactions, found, rows=1), None) is None:
        raise DataError(f"{layout.interactions}: it has no rows; check the log that ingest reads")
    shutil.rmtree(layout.stage("validate"), ignore_errors=True)  # a run that was killed left pieces
    parts = read_json(layout.parts)
    future = future_of(parts, before=validate.timestamps_before)
    rules = row_rules(card, knows_future=future is not None)
    door = open_door()
    with open_duckdb(layout.stage("validate").parent, memory_mb=validate.memory_mb) as connection:
        reasons, rows = sort_rows(
            connection, door, card, rules, layout=layout, future=future, batch=validate.batch_rows
        )
        findings = judge_log(
            connection, door, card, reasons, rows, layout=layout, unit_hint=parts["unit_hint"]
        )
    write_json(layout.report("validate"), findings.report())
    page = layout.validation_page.relative_to(layout.root).as_posix()
    complaint = findings.complaint(page=page, unit_hint=parts["unit_hint"])
    with atomic_path(layout.validation_page) as temporary:
        temporary.write_text(validation_page(card, findings, complaint=complaint), encoding="utf-8")
    logger.info(
        "validate rows_in=%d quarantined=%d rules=%d",
        findings.came.rows,
        findings.quarantined,
        len(findings.rows) + len(findings.log),
    )
    if complaint is not None:
        raise DataError(complaint)


def sort_rows(
    connection: duckdb.DuckDBPyConnection,
    door: Door,
    card: DatasetCard,
    rules: list[Rule],
    *,
    layout: Layout,
    future: Future | None,
    batch: int,
) -> tuple[Counter[str], tuple[RowFinding, ...]]:
    """Write each row to the valid ones or to quarantine; returns how many have each reason (rules'
    names, joined by `;`), and what was found by rule."""
    found = pa.schema([*INTERACTIONS, *card.context_fields])
    valid = pa.schema([*VALID_INTERACTIONS, *card.context_fields])
    rejected = found.append(pa.field(REASON, pa.string(), nullable=False))
    reasons, broken_by = Counter[str](), Counter[str]()
    examples = defaultdict[str, list[Example]](list)
    if card.duplicates == "quarantine":
        find_repeats(connection, layout.interactions, columns=found.names[1:])
    key = (SOURCE_ROW,)
    with (
        table_writer(layout.valid_interactions, valid, key=key) as write_valid,
        table_writer(layout.quarantine, rejected, key=key) as write_rejected,
    ):
        for rows in read_batches(layout.interactions, found, rows=batch):
            repeats = None
            if card.duplicates == "quarantine":
                repeats = repeats_of(connection, rows[SOURCE_ROW].to_numpy())
            broken = judge(door, judged_columns(rows, repeats=repeats, future=future), rules)
            bad, why = reasons_of(broken)
            mask = pa.array(bad)
            write_valid(rows.filter(pc.invert(mask)))
            write_rejected(rows.filter(mask).append_column(rejected.field(REASON), why))
            reasons.update(dict(zip(*_counts(why), strict=True)))
            for rule in rules:
                places = np.flatnonzero(broken[rule.name])
                broken_by[rule.name] += len(places)
                first = rows.take(places[: EXAMPLES - len(examples[rule.name])])
                examples[rule.name] += _examples(first, rule.column, card)
    findings = tuple(
        RowFinding(rule.name, broken_by[rule.name], tuple(examples[rule.name])) for rule in rules
    )
    return reasons, findings


def judge_log(
    connection: duckdb.DuckDBPyConnection,
    door: Door,
    card: DatasetCard,
    reasons: Counter[str],
    rows: tuple[RowFinding, ...],
    *,
    layout: Layout,
    unit_hint: str | None,
) -> Findings:
    """What the log as a whole is beside what its card expects; its valid rows are meant, except
    for the share of bad ones."""
    came = log_facts(connection, layout.interactions)
    went = log_facts(connection, layout.valid_interactions)
    days_in = days_out = dict[int, int]()
    if card.time.kind != "rank":
        days_in = rows_per_day(connection, layout.interactions)
        days_out = rows_per_day(connection, layout.valid_interactions)
    facts: dict[str, float | None] = {
        "bad_share": (came.rows - went.rows) / came.rows,
        "rows": went.rows,
        UNIT_FITS: 1 if unit_hint is None else 0,
        "last_day_share": _last_day_share(card, went, days_out),
    }
    for name, features, key in (
        ("items_described", layout.item_features, ITEM_ID),
        ("users_described", layout.user_features, USER_ID),
    ):
        if getattr(card.expected, name) is not None:
            facts[name] = described_share(
                connection, layout.valid_interactions, features=features, key=key
            )
    rules = log_rules(card)
    # a missing fact would hold every bound: Great Expectations judges only values that there are
    judged = {r.name: [-math.inf if facts[r.name] is None else facts[r.name]] for r in rules}
    broken = judge(door, pa.table(judged), rules)
    log = tuple(
        LogFinding(
            rule=rule.name,
            found=facts[rule.name],
            limit=getattr(card.expected, rule.name, 1),
            at_most=rule.name == "bad_share",
            held=not broken[rule.name][0],
        )
        for rule in rules
    )
    return Findings(
        came=came,
        went=went,
        days_in=days_in,
        days_out=days_out,
        reasons=reasons,
        rows=rows,
        log=log,
    )


def judged_columns(
    rows: pa.Table, *, repeats: npt.NDArray[np.int64] | None, future: Future | None
) -> pa.Table:
    """The columns that rules may look at, the log's own with `CONTEXT` before their names.

    `FINITE_VALUE` has the values that are numbers, `VALUE` infinity where something else stood;
    `REPEATS` is how many equal rows come before a row, `DAYS_AHEAD` how many days its timestamp
    lies in its future: 0 or more, or less than 0 where it does not.
    """
    value = rows[VALUE]
    unread = pc.is_nan(value)
    finite = pc.if_else(pc.is_finite(value), value, pa.scalar(None, pa.float32()))
    # pandas takes NaN for missing, but here it is a value that could not be read
    read = pc.if_else(unread, pa.scalar(np.inf, pa.float32()), value)
    columns = rows.rename_columns(
        [name if name in INTERACTIONS.names else f"{CONTEXT}{name}" for name in rows.column_names]
    )
    columns = columns.set_column(rows.column_names.index(VALUE), VALUE, read)
    columns = columns.drop_columns([SOURCE_ROW]).append_column(FINITE_VALUE, finite)
    if future is not None:
        columns = columns.append_column(DAYS_AHEAD, future.days_ahead(rows))
    return columns if repeats is None else columns.append_column(REPEATS, pa.array(repeats))


def reasons_of(
    broken: dict[str, npt.NDArray[np.bool_]],
) -> tuple[npt.NDArray[np.bool_], pa.StringArray]:
    """Which rows break a rule (N,), and for those the broken rules' names, joined by `;`."""
    names = list(broken)
    flags = np.stack(list(broken.values()), axis=1)  # (N, R)
    bad: npt.NDArray[np.bool_] = np.any(flags, axis=1)
    packed = np.packbits(flags[bad], axis=1)  # (bad, bytes)
    keys = packed.view(np.dtype((np.void, packed.shape[1])))[:, 0]
    _, first, which = np.unique(keys, return_index=True, return_inverse=True)
    texts = [
        ";".join(name for name, flag in zip(names, row, strict=True) if flag)
        for row in flags[bad][first]
    ]
    return bad, pa.array(texts, pa.string()).take(pa.array(which, pa.int64()))


def _counts(values: pa.StringArray) -> tuple[list[str], list[int]]:
    counted = pc.value_counts(values)
    return counted.field("values").to_pylist(), counted.field("counts").to_pylist()


def _last_day_share(card: DatasetCard, log: LogFacts, per_day: dict[int, int]) -> float | None:
    if log.first is None or log.last is None:
        return None
    cut_off = card.cut_off_microseconds
    end = log.last if cut_off is None else min(log.last, cut_off)
    return last_day_share(per_day, first=log.first, end=end)


def _examples(rows: pa.Table, column: str, card: DatasetCard) -> list[Example]:
    """What stands in the column of each of these rows; of a repeated row, what it is."""
    instead = {
        FINITE_VALUE: [VALUE],
        REPEATS: [USER_ID, ITEM_ID, TIMESTAMP],
        DAYS_AHEAD: [TIMESTAMP],
    }
    shown = instead.get(column, [column.removeprefix(CONTEXT)])
    examples = []
    for row in rows.to_pylist():
        values = [_text(row[name], card) for name in shown if row[name] is not None]
        examples.append(Example(row[SOURCE_ROW], " · ".join(values) if values else None))
    return examples


def _text(value: datetime | float | str, card: DatasetCard) -> str:
    """A value for a reader; of a long text its beginning and its length."""
    if isinstance(value, datetime):
        since = value - datetime(1970, 1, 1, tzinfo=UTC)
        if card.time.kind == "rank":
            return str(since // timedelta(microseconds=1))
        if card.time.kind == "relative":
            return f"{since / timedelta(seconds=1):.6f}".rstrip("0").rstrip(".") + " s"
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, float) and math.isnan(value):
        return "no number"
    text = str(value)
    if len(text) > LONGEST_EXAMPLE:
        return f"{text[:LONGEST_EXAMPLE]}… ({len(text):,} characters)"
    return text


if __name__ == "__main__":
    main(run)
