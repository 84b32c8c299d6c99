"""A fresh table without training: the champion scores every user, and the table is published."""

from pathlib import Path

from prefect import flow

from flows.steps import edge_task, recorded
from flows.summary import print_example

score = edge_task("score")
publish = edge_task("publish")


@flow(name="score", persist_result=False)
def score_and_publish(workspace: Path) -> None:
    """Score and publish with the champion of a workspace's registry."""
    with recorded(workspace, flow="score"):
        score(workspace)
        publish(workspace)
    print_example(workspace)
