"""Exports what a scoring machine needs: the refitted networks with their memory as one graph, and
popularity as the fallback."""

import logging
from dataclasses import replace

from recsys_core.artifacts import read_json, write_json
from recsys_core.data.cuts import MICROSECONDS_PER_HOUR, known_part
from recsys_core.errors import ConfigError
from recsys_core.layout import Layout
from recsys_core.models.baselines import fit_popularity_within
from recsys_core.rng import generator
from recsys_core.sections import ExportOnnx
from recsys_core.serving.bundle import write_bundle
from recsys_core.serving.export import export_graphs
from recsys_core.serving.parity import (
    check_parity,
    popularity_scores,
    two_time_scale_ratings,
    two_time_scale_scores,
)
from recsys_core.serving.step_graph import FILE as STEP_GRAPH
from recsys_core.serving.step_graph import check_step_parity
from recsys_core.tables import ITEM_VOCABULARY, read_events, read_table
from tasks.cuts import read_cuts
from tasks.fields import read_fields
from tasks.memory_files import read_memory
from tasks.model_files import read_model
from tasks.new_items import Exported, grown, new_items_report
from tasks.step import main

logger = logging.getLogger(__name__)

PARITY_SEED = 0
"""The inputs of the parity check: the same ones for every export."""


def run(*, layout: Layout, export_onnx: ExportOnnx) -> None:
    """Write the bundle, both graphs compared by value with what they were exported from.

    The popularity graph counts the window that evaluation chose, or all where there was none to
    choose, at the cut until which the model was trained. With `new_items` the bundle knows more
    items than the model that it is made of.
    """
    refit, folder = layout.stage("refit"), layout.bundle
    model, memory = read_model(refit), read_memory(refit)
    if model.config.ablation == "learned_phi":
        raise ConfigError(
            "train_rnn.ablation is learned_phi, which has a vector for the users of its training "
            "alone and is not exported; any other ablation is, and `none` is what should be scored"
        )
    log = read_events(layout.events)
    cut = getattr(read_cuts(layout, log), read_json(refit / "training.json")["cut"])
    hours = read_json(layout.report("evaluate"))["recent_hours"]
    spec = replace(model.input_spec, remembered=memory.config.length)
    events, cut = known_part(log, cut)
    as_of = cut.as_of(events)
    since = None if hours is None else as_of + 1 - round(hours * MICROSECONDS_PER_HOUR)
    popularity = fit_popularity_within(
        events, cut.counts, n_items=spec.n_items, since=since
    ).log_probability
    vocabulary = read_table(layout.item_vocabulary, ITEM_VOCABULARY)
    exported = Exported(model, memory, popularity, vocabulary.slice(0, spec.n_items))
    if export_onnx.new_items:
        exported = grown(exported, layout, as_of=as_of)
        model, memory, popularity = exported.model, exported.memory, exported.popularity
        spec = replace(model.input_spec, remembered=memory.config.length)
    k = min(export_onnx.k, spec.n_items)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / STEP_GRAPH).unlink(missing_ok=True)  # of an export that had one
    export_graphs(
        folder,
        config=model.to_json(),
        weights=model.to_arrays(),
        memory_config=memory.to_json(),
        memory_weights=memory.to_arrays(),
        popularity=popularity,
        k=k,
        step=export_onnx.step,
    )
    references = {
        "two_time_scale": two_time_scale_scores(model, memory),
        "popularity": popularity_scores(popularity),
    }
    parity = {
        graph: check_parity(
            folder / f"{graph}.onnx",
            reference,
            spec,
            k=k,
            rng=generator(PARITY_SEED, "parity", graph),
            ratings=two_time_scale_ratings(model) if graph == "two_time_scale" else None,
        )
        for graph, reference in references.items()
    }
    if export_onnx.step:
        parity["step"] = check_step_parity(
            folder / STEP_GRAPH,
            references["two_time_scale"],
            spec,
            k=k,
            rng=generator(PARITY_SEED, "parity", "step"),
            ratings=two_time_scale_ratings(model),
        )
    digest = write_bundle(
        folder,
        config=model.to_json(),
        memory=memory.to_json(),
        fold_in=model.fold_in,
        items=exported.items,
        new_items=exported.new_items,
        k=k,
        as_of=as_of,
        popularity_hours=hours,
        session_gap_seconds=read_json(layout.session_gap)["seconds"],
        fields=read_fields(refit),
    )
    report = {
        "as_of": as_of,
        "items": spec.n_items,
        "items_of_the_log": vocabulary.num_rows,
        **new_items_report(exported, export_onnx),
        "k": k,
        "popularity_hours": hours,
        "graphs": {
            graph: {
                "bytes": (folder / f"{graph}.onnx").stat().st_size,
                "parity_rows": checked.rows,
                "parity_max_difference": float(f"{checked.max_difference:.2g}"),
            }
            for graph, checked in parity.items()
        },
    }
    write_json(layout.report("export_onnx"), report)
    logger.info(
        "event=export bundle=%s items=%d k=%d parity_max_difference=%.2g",
        digest[:12],
        spec.n_items,
        k,
        max(checked.max_difference for checked in parity.values()),
    )


if __name__ == "__main__":
    main(run)
