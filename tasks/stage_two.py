"""The two fits of stage two: with choices made on validation, and with choices made before."""

import logging
from dataclasses import replace

from recsys_core.data.cuts import Cut
from recsys_core.models.embeddings import Embeddings
from recsys_core.models.step_sizes import T_STAR_RANGE, StepSizes, choose_t_star
from recsys_core.models.two_time_scale import TwoTimeScale
from recsys_core.sections import Evaluate, TrainRnn
from recsys_core.training.fit_rnn import RnnTrainer
from recsys_core.training.loop import Fit
from tasks.training import TrainingData

logger = logging.getLogger(__name__)


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
) -> tuple[TwoTimeScale, Fit]:
    """Stage two on the train part, its epochs chosen on validation."""
    trainer = RnnTrainer(
        data.log_until(data.cuts.valid),
        params,
        embeddings=embeddings,
        seed=seed,
        device=data.device,
        validation=data.validation(evaluate, metric_name=metric_name, seed=seed),
    )
    fit = data.fit(trainer, phase="select", max_epochs=params.max_epochs, patience=params.patience)
    return trainer.finished_model(), fit


def fit_model(
    data: TrainingData,
    params: TrainRnn,
    *,
    embeddings: Embeddings,
    cut: Cut,
    epochs: int,
    seed: int,
) -> TwoTimeScale:
    """Stage two on everything known at `cut`, for a number of epochs chosen before."""
    trainer = RnnTrainer(
        data.log_until(cut),
        params,
        embeddings=embeddings,
        seed=seed,
        device=data.device,
        validation=None,
    )
    data.fit(trainer, phase="refit", max_epochs=epochs, patience=None)
    return trainer.finished_model()
