"""A fresh table without training: the champion scores every user, and the table is published."""

from pathlib import Path

from prefect import flow

from flows.show import show_summary
from flows.steps import edge_task, recorded

score = edge_task("score")
publish = edge_task("publish")


@flow(name="score", persist_result=False)
def score_and_publish(workspace: Path) -> None:
    """Score and publish with the champion of a workspace's registry."""
    with recorded(workspace, flow="score"):
        score(workspace)
        publish(workspace)
    show_summary(workspace, only_example=True)
