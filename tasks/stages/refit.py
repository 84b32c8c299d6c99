"""Trains the evaluated configuration again, on to the end of the log: what will be exported and
scored."""

import shutil

from recsys_core.artifacts import read_json, write_json
from recsys_core.layout import Layout
from recsys_core.sections import Features, Refit, TrainEmbeddings, TrainMemory, TrainRnn
from recsys_core.training.rewards import Rewards
from tasks.clock import check_clock, clock_of
from tasks.embedding_files import UNTIL_TEST, UNTIL_VALID, read_embeddings, read_step_sizes
from tasks.fields import fields_report, known_fields, write_fields
from tasks.item_features import features_report, known_features, write_encoding
from tasks.memory import counted
from tasks.memory_files import read_memory, write_memory
from tasks.model_files import write_model
from tasks.origins import ORIGINS
from tasks.stage_one import fit_embeddings
from tasks.stage_two import fit_model, with_t_star
from tasks.step import main
from tasks.training import TrainingData


def run(
    *,
    layout: Layout,
    refit: Refit,
    train_embeddings: TrainEmbeddings,
    train_rnn: TrainRnn,
    train_memory: TrainMemory,
    features: Features,
    seed: int,
) -> None:
    """Write the model for scoring; `none` keeps the evaluated one, which knows nothing of the test
    period."""
    evaluated, folder = layout.stage("train_rnn"), layout.stage("refit")
    remembered = layout.stage("train_memory")
    if refit.kind == "none":
        write_encoding(folder, None)  # none of an earlier run, unless the model has one
        write_fields(folder, None)
        kept = shutil.ignore_patterns(UNTIL_VALID, ORIGINS)
        for stage in (evaluated, remembered):
            shutil.copytree(stage, folder, ignore=kept, dirs_exist_ok=True)
        epochs = read_json(evaluated / "training.json")["epochs"]
        write_json(layout.report("refit"), {"epochs": epochs, "rows": {"in": 0, "out": 0}})
        return
    check_clock(
        clock_of(layout),
        train_embeddings=train_embeddings,
        train_rnn=train_rnn,
        train_memory=train_memory,
    )
    rule = Rewards.of(train_rnn)
    data = TrainingData.read(
        layout, "refit", train_embeddings, train_rnn, features, seed, reward_rule=rule
    )
    known = known_features(layout, features, data.cuts.end)
    reads = train_rnn.reads
    fields = known_fields(layout, reads, features, events=data.events, cut=data.cuts.end)
    stage_one = layout.stage("train_embeddings")
    embeddings = fit_embeddings(
        data,
        train_embeddings,
        cut=data.cuts.end,
        epochs=read_json(stage_one / "training.json")["epochs"],
        fold_in_l2=read_embeddings(stage_one / UNTIL_TEST).fold_in_l2,
        seed=seed,
    )
    epochs = read_json(evaluated / "training.json")["epochs"]
    params = with_t_star(train_rnn, read_step_sizes(stage_one))
    model = fit_model(
        data.reading(fields),
        params,
        embeddings=embeddings,
        cut=data.cuts.end,
        epochs=epochs,
        seed=seed,
        features=known,
    )
    memory = counted(
        read_memory(remembered), *rule.wanted_part(data.events, data.cuts.end, data.type_names)
    )
    write_model(folder, model)
    write_encoding(folder, known)
    write_fields(folder, fields)
    write_memory(folder, memory)
    write_json(folder / "training.json", {"epochs": epochs, "cut": "end"})
    counts = data.log_until(data.cuts.end).counts
    rows = {"in": len(data.events), "out": int(counts.sum())}
    report = {"epochs": epochs, "rows": rows, **features_report(known), **fields_report(fields)}
    write_json(layout.report("refit"), report)
    data.forget_checkpoints()


if __name__ == "__main__":
    main(run)
