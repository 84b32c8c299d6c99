"""The whole way, from the log to the published table: one Prefect task for each stage and edge."""

from pathlib import Path

from prefect import flow

from flows.show import show_summary
from flows.steps import edge_task, recorded, stage_task
from tasks.snapshot_counts import snapshot_counts

snapshot = edge_task("snapshot", counts=snapshot_counts)

ingest = stage_task("ingest")
validate = stage_task("validate")
sessionize = stage_task("sessionize")
train_embeddings = stage_task("train_embeddings")
train_rnn = stage_task("train_rnn")
train_memory = stage_task("train_memory")
evaluate = stage_task("evaluate")
refit = stage_task("refit")
export_onnx = stage_task("export_onnx")

gate = edge_task("gate")
register = edge_task("register")
score = edge_task("score")
publish = edge_task("publish")


@flow(name="retrain", persist_result=False)
def retrain(workspace: Path) -> None:
    """Train, judge and publish in a prepared workspace; what is up to date is left alone."""
    take_every_step(workspace, flow="retrain")


def take_every_step(workspace: Path, *, flow: str) -> None:
    """Every step in its order, recorded in `run.json` as a run of `flow`, and the summary."""
    with recorded(workspace, flow=flow):
        snapshot(workspace)

        ingest(workspace)
        validate(workspace)
        sessionize(workspace)
        train_embeddings(workspace)
        train_rnn(workspace)
        train_memory(workspace)
        evaluate(workspace)
        refit(workspace)
        export_onnx(workspace)

        gate(workspace)
        register(workspace)
        score(workspace)
        publish(workspace)
    show_summary(workspace)
