"""Stage two as both stages run it: one network for everybody, then two, phase by phase.

With choices made on validation, or with epochs that were chosen before.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace

import torch

from recsys_core.data.cuts import Cut
from recsys_core.models.embeddings import Embeddings
from recsys_core.models.step_sizes import T_STAR_RANGE, StepSizes, choose_t_star
from recsys_core.models.two_time_scale import TwoTimeScale
from recsys_core.rng import generator
from recsys_core.sections import Evaluate, TrainRnn
from recsys_core.training.cold_rows import ColdRows, with_cold_rows
from recsys_core.training.fit_rnn import PHASES, TOGETHER, Phase, RnnTrainer
from recsys_core.training.initial_model import parted
from recsys_core.training.item_mixing import KnownFeatures
from recsys_core.training.log_until import LogUntil
from recsys_core.training.loop import Fit
from recsys_core.training.validation import Validation
from tasks.training import TrainingData, curve_rows

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Selected:
    """A model whose epochs were chosen on validation."""

    model: TwoTimeScale
    epochs: dict[str, int]  # the best of each phase; 0: what it began with
    curve: list[dict[str, float | int | str | None]]
    metric: float  # on validation, of the model
    metric_together: float
    asked: dict[str, dict[str, int]]
    """How many validation targets there were, were asked for, and why not the rest."""
    cold_rows: ColdRows | None
    """Of the regression that tells items without history, where there was one."""


def with_t_star(params: TrainRnn, steps: StepSizes) -> TrainRnn:
    """The same section with t* as a number: `auto` is chosen from what was known before validation.

    All later fits keep that number, and so does the model's configuration.
    """
    if params.t_star != "auto":
        return params
    t_star = choose_t_star(steps, rho=params.rho)
    judged = len(steps.users)
    if t_star in T_STAR_RANGE:
        logger.warning(
            "event=t_star_edge t_star=%d share=%.3f after=%d: the edge of %s, since users' "
            "embeddings %s; set train_rnn.t_star to a number where too few users are %s",
            t_star,
            steps.share[-1] if judged else 0.0,
            judged,
            T_STAR_RANGE,
            "settle at once" if t_star == T_STAR_RANGE[0] else "do not settle before",
            "inactive" if t_star == T_STAR_RANGE[0] else "active",
        )
    else:
        logger.info("event=t_star t_star=%d rho=%g", t_star, params.rho)
    return replace(params, t_star=t_star)


def select_model(
    data: TrainingData,
    params: TrainRnn,
    *,
    embeddings: Embeddings,
    evaluate: Evaluate,
    metric_name: str,
    seed: int,
    features: KnownFeatures | None,
) -> Selected:
    """Stage two on the train part, the epochs of each phase chosen on validation.

    A network alone is judged by its own cohort; where validation has nobody of it, or the log
    nobody to learn from, it stays as the phase together left it. The one network of `one_rnn` has
    its second phase too, on everybody: it learns and is chosen as often as two. `features` are
    those of the items known before validation.
    """
    log = data.log_until(data.cuts.valid)
    validation = data.validation(evaluate, metric_name=metric_name, seed=seed)
    assert params.t_star != "auto", "t* is resolved before anything is trained"
    active = validation.targets.history >= params.t_star
    one = params.ablation == "one_rnn"
    judges = {
        TOGETHER: validation,
        "inactive": validation if one else validation.among(~active),
        "active": validation.among(active),
    }
    fits: dict[Phase, Fit] = {}

    def fit(phase: Phase, trainer: RnnTrainer) -> None:
        apart = phase != TOGETHER
        fits[phase] = data.fit(
            trainer,
            phase=f"select-{phase}",
            max_epochs=params.max_epochs_apart if apart else params.max_epochs,
            patience=params.patience,
            judge_start=apart,
        )

    model, cold_rows = _trained(
        log, params, embeddings, data.device, fit, judges=judges, seed=seed, features=features
    )
    return Selected(
        model=model,
        epochs={phase: fits[phase].best_epoch if phase in fits else 0 for phase in PHASES},
        curve=_curve(fits),
        metric=validation.metric_of_model(model, log),
        metric_together=fits[TOGETHER].best_metric,
        asked=validation.counted,
        cold_rows=cold_rows,
    )


def fit_model(
    data: TrainingData,
    params: TrainRnn,
    *,
    embeddings: Embeddings,
    cut: Cut,
    epochs: Mapping[str, int],
    seed: int,
    features: KnownFeatures | None,
    name: str = "refit",
) -> TwoTimeScale:
    """Stage two on everything known at `cut`, `features` too, for the epochs of each phase chosen
    before; each cut has a `name` of its own."""

    def fit(phase: Phase, trainer: RnnTrainer) -> None:
        data.fit(trainer, phase=f"{name}-{phase}", max_epochs=epochs[phase], patience=None)

    log = data.log_until(cut)
    model, _ = _trained(
        log, params, embeddings, data.device, fit, judges={}, seed=seed, features=features
    )
    return model


def _trained(
    log: LogUntil,
    params: TrainRnn,
    embeddings: Embeddings,
    device: torch.device,
    fit: Callable[[Phase, RnnTrainer], None],
    *,
    judges: Mapping[Phase, Validation],
    seed: int,
    features: KnownFeatures | None,
) -> tuple[TwoTimeScale, ColdRows | None]:
    """One phase after the other, each by `fit`; with `judges`, those that have somebody to judge.

    Once the item table stands still, the decoder of its features learns to tell those without
    history; the networks apart read what has come of it.

    Two networks of `swap` are trained like those of `none`, and only then answer the other group.
    """
    model: TwoTimeScale | None = None
    cold_rows: ColdRows | None = None
    taught = replace(params, ablation="none") if params.ablation == "swap" else params
    for phase in PHASES:
        judge = judges.get(phase)
        if judge is not None and not len(judge.targets):
            continue
        if phase == "active" and not _are_active_taught(log, params):
            continue
        trainer = RnnTrainer(
            log,
            taught,
            embeddings=embeddings,
            seed=seed,
            device=device,
            validation=judge,
            phase=phase,
            after=model,
            features=features,
        )
        fit(phase, trainer)
        model = trainer.finished_model()
        if phase == TOGETHER and features is not None:
            rng = generator(seed, "train_rnn", "cold rows")
            model, cold_rows = with_cold_rows(model, features, counts=log.item_counts, rng=rng)
            if cold_rows is not None:
                logger.info("event=cold_rows %s", _told(cold_rows))
    assert model is not None, "the first phase is never left out"
    if model.config.ablation == params.ablation:
        return model, cold_rows
    if model.config.ablation == "one_rnn":  # no network learned alone
        model = parted(model, log, taught, embeddings=embeddings, seed=seed)
    config = {**model.to_json(), "ablation": params.ablation}
    return TwoTimeScale.from_arrays(config, model.to_arrays()).to(device), cold_rows


def _told(cold_rows: ColdRows) -> str:
    facts = {key: f"{v:.4g}" if isinstance(v, float) else v for key, v in asdict(cold_rows).items()}
    return " ".join(f"{key}={value}" for key, value in facts.items())


def _are_active_taught(log: LogUntil, params: TrainRnn) -> bool:
    """Whether the active network learns: it is there, it moves, and somebody has more than t*
    events to learn from."""
    assert params.t_star != "auto", "t* is resolved before anything is trained"
    there = params.ablation not in ("one_rnn", "active_static")
    return there and bool((log.counts > params.t_star).any())


def _curve(fits: Mapping[Phase, Fit]) -> list[dict[str, float | int | str | None]]:
    """The learning curves one after the other, those apart from the best epoch together on."""
    return [
        {**row, "phase": phase}
        for phase, fit in fits.items()
        for row in curve_rows(fit, after=0 if phase == TOGETHER else fits[TOGETHER].best_epoch)
    ]
