"""Stage one: transductive embeddings, chosen on validation and refitted up to the start of the test
period."""

from functools import partial

from recsys_core.artifacts import write_json
from recsys_core.layout import Layout
from recsys_core.models.fold_in import FoldIn
from recsys_core.models.step_sizes import step_sizes
from recsys_core.sections import Evaluate, TrainEmbeddings, TrainMemory, TrainRnn
from recsys_core.training.rewards import Rewards
from tasks.clock import check_clock, clock_of
from tasks.embedding_files import (
    UNTIL_TEST,
    UNTIL_VALID,
    write_embeddings,
    write_step_sizes,
)
from tasks.origins import earlier_periods, origin_folder
from tasks.stage_one import fit_embeddings, select_embeddings
from tasks.step import main
from tasks.training import TrainingData, curve_rows, rows_trained


def run(
    *,
    layout: Layout,
    train_embeddings: TrainEmbeddings,
    train_rnn: TrainRnn,
    train_memory: TrainMemory,
    evaluate: Evaluate,
    first_metric: str,
    seed: int,
) -> None:
    """Write two sets of embeddings: of what was known before validation, and before the test
    period; and how far events move a user's embedding by the first of them.

    Of stage two's section the rewards are read: an event with none teaches nothing here. Of the
    memory's the origins: each has embeddings of what was known then.
    """
    origins = train_memory.origins
    check_clock(clock_of(layout), train_embeddings=train_embeddings)
    asked = (evaluate.targets, evaluate.seen_filter, first_metric, origins)
    data = TrainingData.read(
        layout,
        "train_embeddings",
        train_embeddings,
        *asked,
        seed,
        reward_rule=Rewards.of(train_rnn),
    )
    periods = earlier_periods(layout, data.events, data.cuts, origins=origins)
    selected, fit = select_embeddings(
        data, train_embeddings, evaluate=evaluate, metric_name=first_metric, seed=seed
    )
    again = partial(
        fit_embeddings,
        data,
        train_embeddings,
        epochs=fit.best_epoch,
        fold_in_l2=selected.fold_in_l2,
        seed=seed,
    )
    folder = layout.stage("train_embeddings")
    write_embeddings(folder / UNTIL_VALID, selected)
    write_embeddings(folder / UNTIL_TEST, again(cut=data.cuts.test))
    for number, period in enumerate(periods, start=1):
        embeddings = again(cut=period.before, name=f"origin-{number}")
        write_embeddings(origin_folder(folder, number), embeddings)
    write_json(folder / "training.json", {"epochs": fit.best_epoch})
    log = data.log_until(data.cuts.valid)
    steps = step_sizes(FoldIn.of(selected), log.events, log.counts)
    write_step_sizes(folder, steps)
    write_json(layout.report("step_sizes"), steps.rows())
    write_json(layout.report("train_embeddings_curve"), curve_rows(fit))
    write_json(
        layout.report("train_embeddings"),
        {
            **rows_trained(data, unwanted=False),
            "best_epoch": fit.best_epoch,
            "epochs": len(fit.curve),
            "fold_in_l2": selected.fold_in_l2,
            f"validation {first_metric}": fit.curve[fit.best_epoch - 1].metric,
        },
    )
    data.forget_checkpoints()


if __name__ == "__main__":
    main(run)
