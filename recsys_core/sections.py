"""The sections of params.yaml as plain frozen values: what each step may be told, and no default
for any of it. Those of the log itself are in `sections_of_data.py`.

They need nothing but the standard library, so that models and training run on a bare machine;
`config.py` reads and checks the file. A section is named like the step that it is for.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from recsys_core.section_checks import FORBID_EXTRA, LARGEST
from recsys_core.section_checks import bounded as _bounded
from recsys_core.section_checks import not_negative as _not_negative
from recsys_core.section_checks import positive as _positive
from recsys_core.section_checks import schema_name as _schema_name
from recsys_core.section_checks import share as _share
from recsys_core.sections_of_scoring import Cold, Filters

TargetKind = Literal["successive", "last", "session", "basket"]
BaselineName = Literal[
    "popularity",
    "recent_popularity",
    "transitions",
    "item_knn",
    "ease",
    "ease_transitions",
    "user_knn",
    "stan",
    "own_recent",
    "own_recent_transitions",
    "own_frequent",
    "personal_frequency",
    "repeat_last",
]


@dataclass(frozen=True)
class TrainEmbeddings:
    """Stage one. `half_life_days`: an event this old weighs half as much in the loss; null weighs
    all alike."""

    __pydantic_config__: ClassVar = FORBID_EXTRA
    dim: int
    batch: int
    negatives: int
    sampling_power: float
    learning_rate: float
    l2: float
    half_life_days: float | None
    max_epochs: int
    patience: int

    def __post_init__(self) -> None:
        _positive(self, "dim", "batch", "negatives", "learning_rate", "max_epochs", "patience")
        _not_negative(self, "l2")
        _bounded(self, "sampling_power")
        if self.half_life_days is not None:
            _positive(self, "half_life_days")


Read = Literal["gap", "request", "session", "type", "value"]
"""What a network may read beside the items of events; see `models/event_reader.py`."""

FIELDS = ("context", "user")
"""What it may read of the columns that the dataset card names so."""

Ablation = Literal["none", "one_rnn", "active_static", "no_stage1", "swap", "learned_phi"]
"""A part taken away from the two time scales, to see what it is worth; `models/ablations.py`."""


@dataclass(frozen=True)
class TrainRnn:
    """Stage two. `t_star` and `window` (K) count events; `t_star` auto takes the number from which
    on one more event moves a user's embedding by at most `rho` of what the first ones did
    (`models/step_sizes.py`). `lead` is the share of a training window that is read before its first
    target; `reads` is what is read beside the items of events, each a `Read` or of `FIELDS`, or one
    column of these as `user.age`; times are `time_dim` numbers each, and `field_dropout` is the
    share of events whose request, feedback or context is hidden, and of windows whose user is;
    `temperature` is of the score `cosine`, `score_penalty` of the loss `bpr_max`; `item_pull` is
    the L2 pull of item vectors to stage one; `warmup` is the share of the first epoch in which the
    learning rates rise; `trend_hours` is the window of the trend and `trend_temperature` what its
    logarithm is divided by, and training sees it as it was at the latest of moments that lie
    `trend_refresh_hours` apart, null: at each event (`models/trend.py`); `max_epochs_apart` and
    `apart_rate`, a factor of the learning rates, are of the epochs after one network has become two
    (`training/fit_rnn.py`).
    `rewards` says what an event of a type is worth, from 0 to 1, others 1; one with a value of at
    most `low_value` is worth no more than `low_value_reward`: what is worth less than an item is on
    average pushes it down (`training/losses.py`). With `rating` the values of events are predicted
    too (`models/ratings.py`): their loss counts `rating_weight`, and `rating_pull` is the L2 pull
    of the items' part to their means."""

    __pydantic_config__: ClassVar = FORBID_EXTRA
    t_star: int | Literal["auto"]
    rho: float
    ablation: Ablation
    window: int
    lead: float
    backbone: Literal["gru", "lstm", "lru", "hgru"]
    hidden: int
    depth: int
    ffn: int
    reads: tuple[str, ...]
    time_dim: int
    field_dropout: float
    score: Literal["dot", "cosine"]
    temperature: float
    dropout: float
    embedding_dropout: float
    gamma: float
    finetune_items: bool
    item_pull: float
    batch: int
    loss: Literal["softmax", "sampled_softmax", "bpr_max"]
    negatives: int | Literal["auto"]
    sampling_power: float
    score_penalty: float
    learning_rate_inactive: float
    learning_rate_active: float
    learning_rate_items: float
    warmup: float
    rate_decay: float
    weight_decay: float
    grad_clip: float
    half_life_days: float | None
    trend_hours: float | None
    trend_temperature: float
    trend_refresh_hours: float | None
    rewards: dict[str, float]
    low_value: float | None
    low_value_reward: float
    rating: bool
    rating_weight: float
    rating_pull: float
    max_epochs: int
    max_epochs_apart: int
    apart_rate: float
    patience: int

    def __post_init__(self) -> None:
        if self.t_star != "auto":
            _positive(self, "t_star")
        _positive(
            self, "rho", "window", "hidden", "depth", "ffn", "time_dim", "temperature", "batch"
        )
        _positive(self, "trend_temperature")
        if self.trend_hours is not None:
            _positive(self, "trend_hours")
            if self.trend_hours * 60 < 1:
                raise ValueError(f"trend_hours is {self.trend_hours}, it must be at least a minute")
        if self.trend_refresh_hours is not None:
            _positive(self, "trend_refresh_hours")
            if not 1 <= self.trend_refresh_hours * 60 <= LARGEST:
                raise ValueError(
                    f"trend_refresh_hours is {self.trend_refresh_hours:g}, it must be at least a "
                    f"minute and at most {LARGEST:g} of them"
                )
            if self.trend_hours is None:
                raise ValueError(
                    f"trend_refresh_hours is {self.trend_refresh_hours:g} and trend_hours null: "
                    "there is no trend to refresh; set trend_hours, or this to null"
                )
        _positive(self, "learning_rate_inactive", "learning_rate_active", "learning_rate_items")
        if self.negatives != "auto":
            _positive(self, "negatives")
        _positive(self, "rate_decay", "grad_clip")
        _positive(self, "max_epochs", "apart_rate", "patience")
        _not_negative(self, "max_epochs_apart")
        _share(self, "rho", "lead", "dropout", "embedding_dropout", "field_dropout", "warmup")
        _not_negative(self, "gamma", "item_pull", "score_penalty", "weight_decay")
        _not_negative(self, "rating_weight", "rating_pull")
        _bounded(self, "sampling_power")
        allowed = (*get_args(Read), *FIELDS)
        for read in self.reads:
            word, dot, column = read.partition(".")
            if word not in allowed or (dot and (word not in FIELDS or not column)):
                raise ValueError(
                    f"reads has {read!r}, it must name some of {', '.join(allowed)}, or a "
                    "column of the card as context.<name> or user.<name>"
                )
        if len(set(self.reads)) < len(self.reads):
            raise ValueError(f"reads is {list(self.reads)}, it must name each once")
        if not all(0.0 <= reward <= 1.0 for reward in self.rewards.values()):
            raise ValueError(f"rewards is {self.rewards}, each must be from 0 to 1")
        if not 0.0 <= self.low_value_reward <= 1.0:
            raise ValueError(f"low_value_reward is {self.low_value_reward}, it must be from 0 to 1")
        if self.low_value is not None:
            _bounded(self, "low_value")
        if self.loss == "bpr_max" and (self.rewards or self.low_value is not None):
            raise ValueError(
                "loss is bpr_max, which has no rewards; use softmax or sampled_softmax"
            )
        if self.loss == "bpr_max" and self.trend_hours is not None:
            raise ValueError("loss is bpr_max, which has no trend; use softmax or sampled_softmax")
        if self.backbone == "hgru" and ("session" not in self.reads or self.depth > 1):
            raise ValueError(
                f"backbone is hgru with reads {list(self.reads)} and depth {self.depth}: it needs "
                "session among reads, which tells it where one ends, and depth 1"
            )
        if self.half_life_days is not None:
            _positive(self, "half_life_days")


@dataclass(frozen=True)
class Features:
    """Item features in stage two (`models/item_decoder.py`). `items` names columns of the card's
    `item_features`, none: ids alone tell items. `categories` and `words` are the most values of a
    field, words of a text, that have a code. Of lambda, the share of an item that its features
    tell: `training_share` in training, null draws it anew for each batch; `warm_share` afterwards
    for items with history; `share_events` (n0) makes that n0 / (n0 + their number of events).
    `cold_ridges` are those of the regression that tells items without history
    (`training/cold_rows.py`), one is chosen by held-out items; none: as the decoder was trained."""

    __pydantic_config__: ClassVar = FORBID_EXTRA
    items: tuple[str, ...]
    categories: int
    words: int
    decoder_hidden: int
    training_share: float | None
    warm_share: float
    share_events: float | None
    cold_ridges: tuple[float, ...]

    def __post_init__(self) -> None:
        _positive(self, "categories", "words", "decoder_hidden")
        if len(set(self.items)) < len(self.items):
            raise ValueError(f"items is {list(self.items)}, it must name each once")
        for name in ("training_share", "warm_share"):
            share = getattr(self, name)
            if share is not None and not 0.0 <= share <= 1.0:
                raise ValueError(f"{name} is {share}, it must be from 0 to 1")
        if self.share_events is not None:
            _positive(self, "share_events")
        if len(set(self.cold_ridges)) < len(self.cold_ridges):
            raise ValueError(f"cold_ridges is {list(self.cold_ridges)}, it must name each once")
        if not all(0 < ridge <= LARGEST for ridge in self.cold_ridges):
            raise ValueError("cold_ridges must be ridges greater than 0")


MemoryTerm = Literal["own", "next", "similar", "factors", "recent"]
"""What a memory adds to the networks' logits; see `models/memory.py`."""


@dataclass(frozen=True)
class TrainMemory:
    """The memory beside the networks; without `terms` there is none. `length` counts the own items
    of a user that are remembered, `next_length` and `similar_length` those whose successors and
    similar items are looked up. `windows` are hours before the cut in which successors and
    popularity are counted, null the whole log. Similar items are those of the best on validation
    of item-item models: ease with each of the ridges `similar_ease`, where the catalogue is not
    too large for it, and item_knn with each of the shrinkages `similar_item_knn`. Items have
    `factor_dim` factors, by the best of the pairs of alpha and ridge `factors`. `targets` is how
    many of the validation period the numbers are fitted on, in `steps` steps at least. With
    `origins` above 1 they are fitted on so many periods, the others before it and as long, and
    networks of before each (`tasks/origins.py`); `targets` is of all of them together."""

    __pydantic_config__: ClassVar = FORBID_EXTRA
    terms: tuple[MemoryTerm, ...]
    length: int
    next_length: int
    similar_length: int
    neighbours: int
    hidden: int
    windows: tuple[float | None, ...]
    similar_ease: tuple[float, ...]
    similar_item_knn: tuple[float, ...]
    factor_dim: int
    factors: tuple[tuple[float, float], ...]
    targets: int
    steps: int
    origins: int

    def __post_init__(self) -> None:
        _positive(self, "length", "next_length", "similar_length", "neighbours", "hidden")
        _positive(self, "factor_dim", "targets", "steps", "origins")
        for name in ("terms", "windows", "similar_ease", "similar_item_knn", "factors"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name} is {list(values)}, it must name each once")
        if not self.windows:
            raise ValueError("windows is empty, it must name at least one; null is the whole log")
        if not all(hours is None or 0 < hours <= LARGEST for hours in self.windows):
            raise ValueError("windows must be numbers of hours greater than 0, or null")
        if not all(0 < l2 <= LARGEST for l2 in self.similar_ease):
            raise ValueError("similar_ease must be ridges greater than 0")
        if not all(0 <= shrink <= LARGEST for shrink in self.similar_item_knn):
            raise ValueError("similar_item_knn must be shrinkages of at least 0")
        if not self.factors or not all(0 < one <= LARGEST for pair in self.factors for one in pair):
            pairs = [list(pair) for pair in self.factors]
            raise ValueError(
                f"factors is {pairs}, it must name at least one pair of an alpha and a ridge, both "
                "greater than 0"
            )
        if "similar" in self.terms and not self.similar_item_knn:
            raise ValueError(
                "similar_item_knn is empty, it must name a shrinkage for catalogues that are too "
                "large for ease; or take similar out of terms"
            )


@dataclass(frozen=True)
class Evaluate:
    """`targets` says what is asked for, in validation too. `train_only` also ranks by what was
    fitted before the validation period. `evaluation/baselines.py` says what the `baselines` are.
    `recent_hours` and `recent_minutes` are the windows that they may choose from on validation;
    without any there is no recent popularity, and transitions are counted over the whole log. With
    `streaming`, in validation too, the trend and the baselines that are `STREAMED` there know every
    event before a target's own time; without, what was known when its period began."""

    __pydantic_config__: ClassVar = FORBID_EXTRA
    targets: TargetKind
    cutoffs: tuple[int, ...]
    seen_filter: bool
    train_only: bool
    baselines: tuple[BaselineName, ...]
    recent_hours: tuple[float, ...]
    recent_minutes: tuple[float, ...]
    streaming: bool
    bootstrap_draws: int
    batch: int

    def __post_init__(self) -> None:
        _positive(self, "bootstrap_draws", "batch")
        if not self.cutoffs:
            raise ValueError("cutoffs is empty, it must name at least one")
        if len(set(self.baselines)) < len(self.baselines):
            raise ValueError(f"baselines is {list(self.baselines)}, it must name each once")
        numbers = (*self.recent_hours, *self.recent_minutes, *self.cutoffs)
        if not all(0 < number <= LARGEST for number in numbers):
            raise ValueError(
                "recent_hours and cutoffs must be lists of numbers greater than 0, and so must "
                "recent_minutes"
            )

    @property
    def windows(self) -> tuple[float, ...]:
        """The windows of both units, in hours."""
        return (*(minutes / 60 for minutes in self.recent_minutes), *self.recent_hours)


@dataclass(frozen=True)
class Refit:
    """`scratch` trains the evaluated configuration again, to the end of the log; `none` keeps the
    evaluated model."""

    __pydantic_config__: ClassVar = FORBID_EXTRA
    kind: Literal["none", "scratch"]


@dataclass(frozen=True)
class ExportOnnx:
    """`k` is the largest number of items that the exported graph can return for a user. With
    `new_items` those that the table of items describes and no event knows can be recommended too,
    told by their features alone (`models/new_items.py`). `step` adds the graph that reads one event
    at a time (`serving/step_graph.py`)."""

    __pydantic_config__: ClassVar = FORBID_EXTRA
    k: int
    new_items: bool
    step: bool

    def __post_init__(self) -> None:
        _positive(self, "k")


@dataclass(frozen=True)
class Gate:
    """The candidate must not be worse than `floor` by more than `margin` on the first metric, on at
    least `min_targets`."""

    __pydantic_config__: ClassVar = FORBID_EXTRA
    floor: Literal["popularity", "recent_popularity"]
    margin: float
    min_targets: int

    def __post_init__(self) -> None:
        _not_negative(self, "margin", "min_targets")


@dataclass(frozen=True)
class Register:
    """How many versions the registry keeps, the champion always among them."""

    __pydantic_config__: ClassVar = FORBID_EXTRA
    keep_versions: int

    def __post_init__(self) -> None:
        _positive(self, "keep_versions")


@dataclass(frozen=True)
class Score:
    """The `k` best items of every user with an event; with `active_within`, of those whose last one
    is no more than so many days before the run's `as_of`. `seen` says which items of a user's
    history are left out: none, all, or those of events of some types. `filters` say what may be
    recommended at all, and `cold` what users without an event get; null: nothing."""

    __pydantic_config__: ClassVar = FORBID_EXTRA
    k: int
    shard_users: int
    active_within: float | None
    seen: Literal["none", "all"] | tuple[str, ...]
    filters: Filters
    cold: Cold | None

    def __post_init__(self) -> None:
        _positive(self, "k", "shard_users")
        if self.active_within is not None:
            _positive(self, "active_within")
        if self.seen == ():
            raise ValueError("seen is an empty list, it must be none, all or name event types")


@dataclass(frozen=True)
class Publish:
    """What keeps the table, and how many runs it keeps besides the current one. `layout` (a row for
    each item, or one for each user) and `schema` are PostgreSQL's alone."""

    __pydantic_config__: ClassVar = FORBID_EXTRA
    kind: Literal["duckdb", "postgres", "parquet"]
    keep_runs: int
    layout: Literal["rows", "arrays"]
    schema: str

    def __post_init__(self) -> None:
        _not_negative(self, "keep_runs")
        _schema_name(self.schema)


@dataclass(frozen=True)
class Backtest:
    """The end of the log in `frames` of `frame_hours` each, one after the other. A model is trained
    on what lies before the first one, and again before `every` one, or before each so-many-th;
    `never` again asks the first one for all frames. Each is chosen on the `valid_hours` before."""

    __pydantic_config__: ClassVar = FORBID_EXTRA
    frame_hours: float
    frames: int
    valid_hours: float
    retrain: int | Literal["every", "never"]

    def __post_init__(self) -> None:
        _positive(self, "frame_hours", "frames", "valid_hours")
        if self.frame_hours * 60 < 1:
            raise ValueError(f"frame_hours is {self.frame_hours}, it must be at least a minute")
        if isinstance(self.retrain, int):
            _positive(self, "retrain")
