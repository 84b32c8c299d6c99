"""Stage two: the two recurrent networks, chosen on validation and refitted up to the start of the
test period."""

from pathlib import Path

from recsys_core.artifacts import write_json
from recsys_core.data.cuts import Cut
from recsys_core.data.fields import EncodedFields
from recsys_core.layout import Layout
from recsys_core.models.ablations import LEAK
from recsys_core.models.two_time_scale import TwoTimeScale
from recsys_core.sections import Evaluate, Features, TrainMemory, TrainRnn
from recsys_core.training.item_mixing import KnownFeatures
from recsys_core.training.rewards import Rewards
from tasks.clock import check_clock, clock_of
from tasks.embedding_files import UNTIL_TEST, UNTIL_VALID, read_embeddings, read_step_sizes
from tasks.fields import fields_report, known_fields, write_fields
from tasks.item_features import features_report, known_features, write_encoding
from tasks.model_files import write_model
from tasks.origins import earlier_periods, origin_folder
from tasks.stage_two import fit_model, select_model, with_t_star
from tasks.step import main
from tasks.training import TrainingData, rows_trained


def run(
    *,
    layout: Layout,
    train_rnn: TrainRnn,
    train_memory: TrainMemory,
    features: Features,
    evaluate: Evaluate,
    first_metric: str,
    seed: int,
) -> None:
    """Write the model that knows everything before the test period, the one of before validation,
    and the learning curve that chose its epochs.

    Of the memory's section the origins are read: each has a model of what was known then.
    """
    origins = train_memory.origins
    check_clock(clock_of(layout), train_rnn=train_rnn)
    asked = (evaluate.targets, evaluate.seen_filter, evaluate.streaming, first_metric, origins)
    rule = Rewards.of(train_rnn)
    data = TrainingData.read(
        layout, "train_rnn", train_rnn, features, *asked, seed, reward_rule=rule
    )
    periods = earlier_periods(layout, data.events, data.cuts, origins=origins)
    embeddings = layout.stage("train_embeddings")
    params = with_t_star(train_rnn, read_step_sizes(embeddings))
    known = known_features(layout, features, data.cuts.valid)
    fields = known_fields(layout, params.reads, features, events=data.events, cut=data.cuts.valid)
    selected = select_model(
        data.reading(fields),
        params,
        embeddings=read_embeddings(embeddings / UNTIL_VALID),
        evaluate=evaluate,
        metric_name=first_metric,
        seed=seed,
        features=known,
    )
    folder = layout.stage("train_rnn")
    write_model(folder / UNTIL_VALID, selected.model)
    write_encoding(folder / UNTIL_VALID, known)
    write_fields(folder / UNTIL_VALID, fields)

    def again(
        folder: Path, begun: Path, cut: Cut, name: str
    ) -> tuple[TwoTimeScale, KnownFeatures | None, EncodedFields | None]:
        """The model of what was known at a cut, for the epochs chosen, and what it reads; written
        into `folder`."""
        known = known_features(layout, features, cut)
        fields = known_fields(layout, params.reads, features, events=data.events, cut=cut)
        model = fit_model(
            data.reading(fields),
            params,
            embeddings=read_embeddings(begun),
            cut=cut,
            epochs=selected.epochs,
            seed=seed,
            features=known,
            name=name,
        )
        write_model(folder, model)
        write_encoding(folder, known)
        write_fields(folder, fields)
        return model, known, fields

    model, known, fields = again(folder, embeddings / UNTIL_TEST, data.cuts.test, "refit")
    for number, period in enumerate(periods, start=1):
        begun, written = (origin_folder(of, number) for of in (embeddings, folder))
        again(written, begun, period.before, f"origin-{number}")
    write_json(folder / "training.json", {"epochs": selected.epochs, "cut": "test"})
    write_json(layout.report("train_rnn_curve"), selected.curve)
    write_json(
        layout.report("train_rnn"),
        {
            **rows_trained(data, unwanted=True),
            **features_report(known, selected.cold_rows),
            **selected.asked,
            **fields_report(fields),
            "best_epochs": selected.epochs,
            "epochs": len(selected.curve),
            "t_star": model.config.t_star,
            "ablation": model.config.ablation,
            **({"leak": LEAK} if model.config.ablation == "learned_phi" else {}),
            "gamma": round(float(model.active.gamma.detach().mean()), 6),
            f"validation {first_metric}": {
                "together": selected.metric_together,
                "apart": selected.metric,
            },
        },
    )
    data.forget_checkpoints()


if __name__ == "__main__":
    main(run)
