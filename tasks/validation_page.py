"""What validation found as one HTML page: no script, no outside link, and the same bytes for the
same findings. Whatever comes from the log or its card is escaped."""

from datetime import UTC, datetime, timedelta
from html import escape

from recsys_core.data.cards import DatasetCard
from recsys_core.data.log_facts import DAY_MICROSECONDS, LogFacts
from tasks.findings import MEANING, Example, Findings, LogFinding, RowFinding

MOST_BARS = 120
"""Bars of the chart; a longer log has several days in each."""

CHART_WIDTH, CHART_HEIGHT = 720, 160

STYLE = """
:root { color-scheme: light dark; --ink: #1d2430; --soft: #5b6575; --line: #d9dee6;
  --paper: #ffffff; --panel: #f4f6f9; --good: #3f74b5; --bad: #c4512d; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --soft: #9aa5b5; --line: #343c49;
  --paper: #14181f; --panel: #1d232c; --good: #6fa3dd; --bad: #e8825f; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 60rem; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0; }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p { margin: .4rem 0; } .soft { color: var(--soft); }
.verdict { margin: 1rem 0; padding: .7rem 1rem; background: var(--panel);
  border-left: .3rem solid var(--good); overflow-wrap: anywhere; }
.verdict.stop { border-color: var(--bad); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .6rem; }
.tile { background: var(--panel); padding: .6rem .8rem; border-radius: .3rem; }
.tile b { display: block; font-size: 1.3rem; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .4rem .6rem .4rem 0;
  border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: normal; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
code { font: .9em ui-monospace, monospace; overflow-wrap: anywhere; white-space: pre-wrap; }
.bar { width: 8rem; min-width: 4rem; } .bar div { background: var(--panel); margin-top: .4rem; }
.bar i { display: block; height: .7rem; min-width: 2px; background: var(--bad); }
@media (max-width: 40rem) {
  .rules th { display: none; } .rules tr { display: flex; flex-wrap: wrap; gap: 0 1rem;
    border-bottom: 1px solid var(--line); padding: .4rem 0; }
  .rules td { border: 0; padding: .1rem 0; } .rules .bar, .rules .rule, .rules .first {
    width: 100%; } }
.broken { color: var(--bad); font-weight: bold; }
svg { display: block; width: 100%; height: 10rem; background: var(--panel); }
svg .in { fill: var(--bad); } svg .out { fill: var(--good); }
.axis { display: flex; justify-content: space-between; color: var(--soft); font-size: .85rem; }
.key { display: inline-block; width: .7rem; height: .7rem; }
"""


def validation_page(card: DatasetCard, findings: Findings, *, complaint: str | None) -> str:
    """The page; `complaint` is why the run stops, or None."""
    verdict = "The log passed." if complaint is None else f"The run stops here: {complaint}"
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            # even what escaping might miss may load nothing and run nothing
            '<meta http-equiv="Content-Security-Policy" '
            "content=\"default-src 'none'; style-src 'unsafe-inline'\">",
            f"<title>Validation of {_text(card.name)}</title>",
            f"<style>{STYLE}</style>",
            "</head>",
            "<body>",
            f"<h1>{_text(card.title)}</h1>",
            f'<p class="soft">Validation of <code>{_text(card.name)}</code></p>',
            f'<p class="verdict{"" if complaint is None else " stop"}">{_text(verdict)}</p>',
            *_tiles(findings, card.time.kind),
            *_log_rules(findings.log),
            *_days(findings, card.time.kind),
            *_row_rules(findings),
            "</body>",
            "</html>",
            "",
        ]
    )


def _tiles(findings: Findings, kind: str) -> list[str]:
    came, went = findings.came, findings.went
    tiles = [
        (f"{came.rows:,}", "rows came in"),
        (f"{went.rows:,}", "rows went on"),
        (
            f"{findings.quarantined:,}",
            f"rows in quarantine, {_share(findings.quarantined / came.rows)}",
        ),
        (f"{went.users:,}", f"users, of {came.users:,} that came in"),
        (f"{went.items:,}", f"items, of {came.items:,} that came in"),
    ]
    return [
        '<div class="tiles">',
        *(f'<div class="tile"><b>{number}</b>{words}</div>' for number, words in tiles),
        "</div>",
        f'<p class="soft">Valid rows: {_span(went, kind)}.</p>',
    ]


def _log_rules(found: tuple[LogFinding, ...]) -> list[str]:
    rows = []
    for finding in found:
        value = "nothing to tell it by" if finding.found is None else _number(finding.found)
        bound = f"at {'most' if finding.at_most else 'least'} {_number(finding.limit)}"
        held = "yes" if finding.held else '<span class="broken">no</span>'
        rows.append(
            f"<tr><td>{_text(MEANING[finding.rule])}</td>"
            f'<td class="n">{value}</td><td class="n">{bound}</td><td>{held}</td></tr>'
        )
    return [
        "<h2>The log as a whole</h2>",
        '<div class="scroll"><table>',
        '<tr><th>what</th><th class="n">found</th><th class="n">expected</th><th>holds</th></tr>',
        *rows,
        "</table></div>",
    ]


def _row_rules(findings: Findings) -> list[str]:
    broken = sorted(
        (found for found in findings.rows if found.rows), key=lambda f: (-f.rows, f.rule)
    )
    held = [f"<code>{_text(found.rule)}</code>" for found in findings.rows if not found.rows]
    page = ["<h2>Rules for rows</h2>"]
    if broken:
        page += [
            "<p>Rows that break a rule lie in <code>quarantine.parquet</code>, beside this page: "
            "each once, with the names of all rules that it breaks.</p>",
            '<div class="scroll"><table class="rules">',
            '<tr><th>rule</th><th class="n">broken by</th><th class="n">share</th>'
            '<th class="bar"></th>'
            "<th>the first of them</th></tr>",
            *(_row_rule(found, findings.came.rows) for found in broken),
            "</table></div>",
        ]
    if held:
        page.append(f"<p>No row breaks any of these: {', '.join(held)}.</p>")
    return page


def _row_rule(found: RowFinding, rows: int) -> str:
    shown = "<br>".join(map(_example, found.examples))
    return (
        f'<tr><td class="rule"><code>{_text(found.rule)}</code></td>'
        f'<td class="n">{found.rows:,} rows</td><td class="n">{_share(found.rows / rows)}</td>'
        f'<td class="bar"><div><i style="width:{100 * found.rows / rows:.2f}%"></i></div></td>'
        f'<td class="first">{shown}</td></tr>'
    )


def _example(example: Example) -> str:
    value = "nothing" if example.value is None else f"<code>{_text(example.value)}</code>"
    return f'<span class="soft">row {example.source_row:,}:</span> {value}'


def _days(findings: Findings, kind: str) -> list[str]:
    """Rows per day as bars: valid ones, and above them those in quarantine."""
    shown = findings.days_out or findings.days_in
    if not shown:
        return []
    first, last = min(shown), max(shown)
    width = -(-(last - first + 1) // MOST_BARS)
    bars = [(0, 0)] * (-(-(last - first + 1) // width))
    for day, rows in findings.days_in.items():
        if first <= day <= last:
            place = (day - first) // width
            came, went = bars[place]
            bars[place] = (came + rows, went + findings.days_out.get(day, 0))
    outside = findings.came.rows - sum(came for came, _ in bars)
    most = max(came for came, _ in bars)
    each = "day" if width == 1 else f"{width} days"
    page = [
        f"<h2>Rows per {each}</h2>",
        f'<div class="axis"><span>{most:,} at most</span><span>'
        f'<i class="key" style="background:var(--good)"></i> valid '
        f'<i class="key" style="background:var(--bad)"></i> in quarantine</span></div>',
        f'<svg viewBox="0 0 {CHART_WIDTH} {CHART_HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="Rows per {each}">',
        *(_bar(bars, place, most, _day(first + place * width, kind)) for place in range(len(bars))),
        "</svg>",
        f'<div class="axis"><span>{_day(first, kind)}</span><span>{_day(last, kind)}</span></div>',
    ]
    if outside:
        page.append(f'<p class="soft">{outside:,} rows have no time, or one outside of these.</p>')
    return page


def _bar(bars: list[tuple[int, int]], place: int, most: int, day: str) -> str:
    came, went = bars[place]
    step = CHART_WIDTH / len(bars)
    gap = min(step / 8, 2)
    shapes = [
        f'<rect class="{name}" x="{place * step + gap / 2:.2f}" width="{step - gap:.2f}" '
        f'y="{CHART_HEIGHT - height:.2f}" height="{height:.2f}"/>'
        for name, height in (
            ("in", CHART_HEIGHT * came / most),
            ("out", CHART_HEIGHT * went / most),
        )
    ]
    return f"<g><title>{day}: {went:,} valid of {came:,}</title>{''.join(shapes)}</g>"


def _span(log: LogFacts, kind: str) -> str:
    if log.first is None or log.last is None:
        return "none"
    if kind == "rank":
        return f"ranks {log.first:,} to {log.last:,}"
    if kind == "relative":
        return (
            f"{(log.last - log.first) / DAY_MICROSECONDS:,.1f} days, counted from the log's start"
        )
    return f"{_moment(log.first)} to {_moment(log.last)} UTC"


def _day(day: int, kind: str) -> str:
    return _moment(day * DAY_MICROSECONDS)[:10] if kind == "absolute" else f"day {day:,}"


def _moment(microseconds: int) -> str:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def _share(share: float) -> str:
    """A share in percent; a few rows of very many are not shown as none."""
    return "&lt;&nbsp;0.01&nbsp;%" if 0 < share < 0.0001 else f"{100 * share:.2f}&nbsp;%"


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"


def _text(text: str) -> str:
    """A text as HTML, its invisible characters spelled out: they could reverse or hide others."""
    seen = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)
    return escape(seen, quote=True)
