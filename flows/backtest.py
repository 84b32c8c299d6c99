"""A backtest: the end of the log in frames, a model trained before each, one workspace for each."""

from pathlib import Path

from prefect import flow
from prefect.logging import get_run_logger

from flows.retrain import (
    evaluate,
    ingest,
    sessionize,
    train_embeddings,
    train_memory,
    train_rnn,
    validate,
)
from flows.steps import edge_task, recorded
from flows.workspace import CHECKOUT, checked, chosen_overrides, prepared
from recsys_core.artifacts import read_json
from recsys_core.config import read_params
from recsys_core.evaluation.backtest import Origin, first_origin
from recsys_core.layout import Layout
from tasks.backtest import check_backtest, end_of, origin_overrides, origins, window_of

join_origins = edge_task("backtest")


def check(workspace: Path, given: list[str], *, called_from: Path) -> None:
    """Raise `ConfigError` where a backtest with the overrides `given` would be refused; nothing is
    written."""
    from recsys_core.data.cards import read_card

    chosen = chosen_overrides(workspace, given, called_from=called_from)
    _, params = checked(chosen.values, folder=workspace, called_from=chosen.called_from)
    check_backtest(params, read_card(Layout(CHECKOUT).card(params.ingest.dataset)))


@flow(name="backtest", persist_result=False)
def backtest(workspace: Path) -> None:
    """Train and evaluate before each frame in a prepared workspace, and join what was found.

    What is up to date already is left alone, so an interrupted backtest goes on where it was.
    """
    layout = Layout(workspace)
    asked = read_params(layout.params).backtest
    with recorded(workspace, flow="backtest"):
        first = first_origin(asked)
        overrides = origin_overrides(asked, first, end=None, window=None)
        train_and_ask(layout, first, overrides)
        end, window = end_of(layout), window_of(layout)
        later = origins(layout, asked)[1:]
        for number, origin in enumerate(later, start=1):
            get_run_logger().info("retraining=%d/%d", number, len(later))
            overrides = origin_overrides(asked, origin, end=end, window=window)
            train_and_ask(layout, origin, overrides)
        join_origins(workspace)


def train_and_ask(layout: Layout, origin: Origin, overrides: list[str]) -> None:
    """Every stage up to evaluation in the origin's workspace: the params of the backtest's, with
    `overrides`."""
    folder = layout.origin(origin.first)
    chosen = chosen_overrides(layout.root, [], called_from=layout.root)
    get_run_logger().info("origin=%d frames=%d-%d", origin.first, origin.first, origin.last - 1)
    values = [*chosen.values, *overrides]
    with (
        prepared(folder, values, called_from=chosen.called_from),
        recorded(folder, flow="backtest"),
    ):
        ingest(folder)
        validate(folder)
        sessionize(folder)
        train_embeddings(folder)
        train_rnn(folder)
        train_memory(folder)
        evaluate(folder)


def summary_lines(workspace: Path) -> list[str]:
    """What a backtest says at its end: each curve over all frames, and where they lie."""
    layout = Layout(workspace)
    report = read_json(layout.report("backtest"))
    frames, rows = report["frames"], report["rows"]
    lines = [
        f"{report['first_metric']} over {rows['out']:,} targets in {frames['out']} frames, "
        f"{len(report['origins'])} trainings; [95 % interval by user]"
    ]
    for name, found in sorted(
        report["curves"].items(), key=lambda one: -one[1]["interval"]["value"]
    ):
        line = f"  {name:18} {_interval(found['interval'])}"
        if "frames_above" in found:
            above = f"above recent popularity in {found['frames_above']} of {frames['out']} frames"
            line += f"  {above}, by {_interval(found['minus recent_popularity'])}"
        lines.append(line)
    if report["trend_recovers"] is not None:
        share = f"{report['trend_recovers']:.0%}"
        lines.append(f"  the trend alone recovers {share} of what stale weights lose")
    return [*lines, f"curves: {layout.curve}, {layout.curve.with_suffix('.svg')}"]


def _interval(found: dict[str, float]) -> str:
    return f"{found['value']:.4f} [{found['low']:.4f}, {found['high']:.4f}]"
