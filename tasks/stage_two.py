"""The two fits of stage two: with choices made on validation, and with choices made before."""

from recsys_core.models.embeddings import Embeddings
from recsys_core.models.two_time_scale import TwoTimeScale
from recsys_core.sections import TrainRnn
from recsys_core.training.fit_rnn import RnnTrainer
from recsys_core.training.loop import Fit
from tasks.training import TrainingData


def select_model(
    data: TrainingData, params: TrainRnn, *, embeddings: Embeddings, metric_name: str, seed: int
) -> Fit:
    """Stage two on the train part, its epochs chosen on validation."""
    trainer = RnnTrainer(
        data.log_until(data.split.valid_start),
        params,
        embeddings=embeddings,
        seed=seed,
        device=data.device,
        validation=data.validation(metric_name=metric_name, seed=seed),
    )
    return data.fit(trainer, phase="select", max_epochs=params.max_epochs, patience=params.patience)


def fit_model(
    data: TrainingData,
    params: TrainRnn,
    *,
    embeddings: Embeddings,
    until: int,
    epochs: int,
    seed: int,
) -> TwoTimeScale:
    """Stage two on everything before `until`, for a number of epochs chosen before."""
    trainer = RnnTrainer(
        data.log_until(until),
        params,
        embeddings=embeddings,
        seed=seed,
        device=data.device,
        validation=None,
    )
    data.fit(trainer, phase="refit", max_epochs=epochs, patience=None)
    return trainer.finished_model()
