"""`make bench-hrnn ROW=ablation`: what each thing that is read is worth (HRNN-meta, table 1).

    popularity                     how often each item was taken
    last_item_features             the features of the last item, and nothing before it: a window
                                   of one event, items as features alone (lambda 1)
    sequence                       the items of the history, and the gaps between them
    sequence_user                  with what is known of the user
    sequence_user_item             with the features of items, mixed with what their ids say
    sequence_user_item_feedback    with the type and the value of each event

Each case is compared with the one before it.
"""

from pathlib import Path

from benchmarks.hrnn_cases import POPULARITY, merge_cases, read_cases, run_cases
from benchmarks.hrnn_results import Experiment, experiment_of
from benchmarks.row import Row

ROWS = ("ablation-simulator", "ablation-ml100k")
TITLE = "What is read: popularity, the last item's features, the sequence, and what is beside it"
NOTE = (
    "One network (`one_rnn`), the full softmax, no memory. Perplexity is of known targets. Each "
    "case stands against the one before."
)


def run(seed: int, *, runs: Path, logs: Path) -> Experiment:
    """Run the cases of both logs with a seed; returns what all finished seeds found."""
    rows = [read_cases(name) for name in ROWS]
    for row in rows:
        run_cases(row, seed, runs=runs, logs=logs)
    return merged(rows, runs=runs)


def merged(rows: list[Row], *, runs: Path) -> Experiment:
    """What the finished seeds of these rows found."""
    tables = []
    for row in rows:
        names = [POPULARITY, *row.cases]
        before = dict(zip(names[1:], names[:-1], strict=True))
        tables.append(merge_cases(row, runs=runs, against=before))
    return experiment_of("ablation", title=TITLE, note=NOTE, tables=tables)
