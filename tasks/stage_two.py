"""The two fits of stage two: with choices made on validation, and with choices made before."""

from recsys_core.data.cuts import Cut
from recsys_core.models.embeddings import Embeddings
from recsys_core.models.two_time_scale import TwoTimeScale
from recsys_core.sections import Evaluate, TrainRnn
from recsys_core.training.fit_rnn import RnnTrainer
from recsys_core.training.loop import Fit
from tasks.training import TrainingData


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
