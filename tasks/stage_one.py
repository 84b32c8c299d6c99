"""The two fits of stage one: with choices made on validation, and with choices made before."""

import logging

from recsys_core.data.cuts import Cut
from recsys_core.models.embeddings import Embeddings
from recsys_core.sections import Evaluate, TrainEmbeddings
from recsys_core.training.fit_embeddings import FOLD_IN_L2, EmbeddingTrainer, choose_fold_in_l2
from recsys_core.training.loop import Fit
from tasks.training import TrainingData

logger = logging.getLogger(__name__)


def select_embeddings(
    data: TrainingData,
    params: TrainEmbeddings,
    *,
    evaluate: Evaluate,
    metric_name: str,
    seed: int,
) -> tuple[Embeddings, Fit]:
    """Stage one on the train part, its epochs and its fold-in chosen on validation."""
    validation = data.validation(evaluate, metric_name=metric_name, seed=seed)
    trainer = EmbeddingTrainer(
        data.log_until(data.cuts.valid),
        params,
        seed=seed,
        device=data.device,
        validation=validation,
    )
    fit = data.fit(trainer, phase="select", max_epochs=params.max_epochs, patience=params.patience)
    chosen = choose_fold_in_l2(trainer, validation, events=data.events)
    if chosen.fold_in_l2 in (FOLD_IN_L2[0], FOLD_IN_L2[-1]):
        logger.warning(
            "event=fold_in_edge l2=%g: folding in predicts best at the edge of %s, so a user's "
            "embedding says %s about the next item than these can express",
            chosen.fold_in_l2,
            FOLD_IN_L2,
            "more" if chosen.fold_in_l2 == FOLD_IN_L2[0] else "less",
        )
    return chosen, fit


def fit_embeddings(
    data: TrainingData,
    params: TrainEmbeddings,
    *,
    cut: Cut,
    epochs: int,
    fold_in_l2: float,
    seed: int,
    name: str = "refit",
) -> Embeddings:
    """Stage one on everything known at `cut`, with choices made before; each cut has a `name` of
    its own."""
    trainer = EmbeddingTrainer(
        data.log_until(cut), params, seed=seed, device=data.device, validation=None
    )
    data.fit(trainer, phase=name, max_epochs=epochs, patience=None)
    return trainer.embeddings(fold_in_l2=fold_in_l2)
