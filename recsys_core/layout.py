"""Where things lie in a workspace; dvc.yaml repeats the stages' part, and a test compares."""

from dataclasses import dataclass
from pathlib import Path

STAGES = (
    "ingest",
    "validate",
    "sessionize",
    "train_embeddings",
    "train_rnn",
    "train_memory",
    "evaluate",
    "refit",
    "export_onnx",
)
EDGES = ("snapshot", "gate", "register", "score", "publish")
BESIDE = ("backtest",)
"""Edges that no nightly run takes."""


@dataclass(frozen=True)
class Layout:
    """Paths of one workspace. A stage writes `artifacts/<stage>/` and files in `reports/`, nothing
    else."""

    root: Path = Path()

    def stage(self, name: str) -> Path:
        """The output folder of a stage."""
        if name not in STAGES:
            raise ValueError(f"{name!r} is not one of the stages {STAGES}")
        return self.root / "artifacts" / name

    def report(self, name: str) -> Path:
        """The JSON report of a stage: its metrics for `dvc metrics`, and what the flow prints. The
        snapshot edge has one too, of its last run alone."""
        return self.root / "reports" / f"{name}.json"

    @property
    def params(self) -> Path:
        return self.root / "params.yaml"

    def card(self, dataset: str) -> Path:
        """The dataset card as written by its author."""
        return self.root / "datasets" / f"{dataset}.yaml"

    @property
    def resolved_card(self) -> Path:
        """The card as ingest resolved it: what later stages read."""
        return self.stage("ingest") / "card.json"

    @property
    def interactions(self) -> Path:
        return self.stage("ingest") / "interactions.parquet"

    @property
    def parts(self) -> Path:
        """The rows at which each delivery of a snapshot begins, by which late ones are known."""
        return self.stage("ingest") / "parts.json"

    @property
    def item_features(self) -> Path:
        return self._features / "items.parquet"

    @property
    def user_features(self) -> Path:
        return self._features / "users.parquet"

    @property
    def declared_features(self) -> Path:
        """What the card declares of both; there even where it declares none, so that whoever reads
        features may depend on their folder alone."""
        return self._features / "declared.json"

    @property
    def _features(self) -> Path:
        return self.stage("ingest") / "features"

    @property
    def oracle(self) -> Path:
        """The simulator's truth (a folder); absent for real logs."""
        return self.stage("ingest") / "oracle"

    @property
    def valid_interactions(self) -> Path:
        return self.stage("validate") / "interactions.parquet"

    @property
    def quarantine(self) -> Path:
        return self.stage("validate") / "quarantine.parquet"

    @property
    def validation_page(self) -> Path:
        """What validation found, as one HTML page without outside links."""
        return self.stage("validate") / "summary.html"

    @property
    def events(self) -> Path:
        """The memory-mapped event columns (a folder)."""
        return self.stage("sessionize") / "events"

    @property
    def item_vocabulary(self) -> Path:
        return self.stage("sessionize") / "items.parquet"

    @property
    def user_vocabulary(self) -> Path:
        return self.stage("sessionize") / "users.parquet"

    @property
    def split(self) -> Path:
        """The times that cut the log into train, validation and test."""
        return self.stage("sessionize") / "split.json"

    @property
    def time_kind(self) -> Path:
        """Whether the log has clock times: the card's `time.kind`, for steps that need them."""
        return self.stage("sessionize") / "time.json"

    @property
    def session_gap(self) -> Path:
        return self.stage("sessionize") / "session_gap.json"

    @property
    def event_types(self) -> Path:
        """Names of the kept event types, in the order of the events' column, and their weights."""
        return self.stage("sessionize") / "event_types.json"

    @property
    def ranks(self) -> Path:
        return self.stage("evaluate") / "ranks.parquet"

    @property
    def metrics(self) -> Path:
        return self.stage("evaluate") / "metrics.parquet"

    @property
    def bundle(self) -> Path:
        """What a scoring machine needs, with its manifest (a folder)."""
        return self.stage("export_onnx")

    def origin(self, first: int) -> Path:
        """The workspace in a backtest of the model trained before the frame `first`, from 0."""
        return self.root / "origins" / f"{first:04}"

    @property
    def curve(self) -> Path:
        """What a backtest measured, one row for each frame and model."""
        return self.root / "reports" / "backtest" / "curve.parquet"

    @property
    def checkpoints(self) -> Path:
        """Training state of an interrupted run; not an output, since DVC deletes outputs before a
        run."""
        return self.root / ".checkpoints"

    @property
    def gate(self) -> Path:
        """The verdict of the last gate, beside the registry since it is no stage's output."""
        return self.registry / "gate.json"

    @property
    def registry(self) -> Path:
        return self.root / "registry"

    @property
    def scores(self) -> Path:
        """Shards of a scoring run that is not yet published."""
        return self.root / "scores"

    @property
    def published(self) -> Path:
        return self.root / "published"

    @property
    def table(self) -> Path:
        """The published table where DuckDB keeps it."""
        return self.published / "recommendations.duckdb"

    @property
    def parquet_table(self) -> Path:
        """The published table where it is Parquet files (a folder)."""
        return self.published / "recommendations"

    @property
    def table_note(self) -> Path:
        """Which kind of table was published last, and all of PostgreSQL's schemas that were."""
        return self.published / "table.json"

    @property
    def states(self) -> Path:
        """What a scoring run leaves of each user for the next one; made anew where absent."""
        return self.root / "states"
