"""`make bench-hrnn ROW=sampled`: the sampled softmax beside the dense one (HRNN-meta, table 8).

At each size of catalogue both train the same network on the same drawn log for as many seconds,
each in a process of its own: how many events they learn in that time, how much memory that takes,
and how well they then predict, over the whole catalogue. Negatives are `auto`, its root.

The log is drawn: items lie in topics of a hundred, and what follows is of the same topic as what
came last half of the time, else anything, low numbers far more often. So there is a popularity to
be known from the start, and more to be learned.
"""

from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.hrnn_results import Experiment, experiment_of
from benchmarks.measure import ROOT, call, circumstances, measure_and_listen
from benchmarks.quality_stages import code_of
from benchmarks.train_ours import as_drawn, device, device_name, device_peak_mb, params_of
from benchmarks.training_case import Case, Meter, heard, say_speed
from recsys_core.artifacts import read_json, write_json
from recsys_core.config import read_params, read_yaml
from recsys_core.data.cuts import Cut
from recsys_core.data.events import Events
from recsys_core.models.predict import user_vectors
from recsys_core.models.two_time_scale import TwoTimeScale
from recsys_core.rng import generator
from recsys_core.training.fit_rnn import RnnTrainer
from recsys_core.training.log_until import LogUntil

SIZES = (10_000, 100_000, 1_000_000)
LOSSES = ("softmax", "sampled_softmax")
SECONDS = 300.0
USERS, EVENTS_PER_USER = 60_000, 30
WIDTH, WINDOW, BATCH = 64, 32, 2_048
TOPIC, STAYS = 100, 0.5
CODE = tuple(
    f"benchmarks/{name}.py" for name in ("hrnn_sampled", "measure", "train_ours", "training_case")
)
TARGETS = 2_000
TARGETS_AT_ONCE = 16
TITLE = "The sampled softmax beside the dense one, by the size of the catalogue"
NOTE = (
    "A drawn log; both train for the same time, so that `perplexity` is what that time buys, over "
    "the whole catalogue, of the last event of users who are held out of training. At 1,000,000 "
    "items the goal is 10 times the events a second of dense. `peak MB` is that of the device: of "
    "a GPU's memory where one trained, else of the process."
)


def run(
    seed: int,
    *,
    runs: Path,
    logs: Path,  # noqa: ARG001 (one shape for all experiments)
    sizes: tuple[int, ...] = SIZES,
    seconds: float = SECONDS,
    users: int = USERS,
) -> Experiment:
    """Measure what was not measured yet with a seed; returns what all seeds found."""
    folder = runs / "sampled"
    folder.mkdir(parents=True, exist_ok=True)
    for items in sizes:
        for loss in LOSSES:
            path = folder / f"{seed}-{items}-{loss}.json"
            asked = asked_for(items, loss, seconds=seconds, users=users, seed=seed)
            if path.exists() and read_json(path)["asked"] == asked:
                continue
            command = call("benchmarks.hrnn_sampled:fit", items, loss, seconds, users, seed)
            measured, text = measure_and_listen(command)
            told = {**heard(text), "peak_mb": round(measured.peak_mb)}
            write_json(path, {"asked": asked, **told, **circumstances("numpy", "torch")})
            print(f"event=measured items={items} loss={loss} {told}", flush=True)
    return merged(folder, sizes=sizes, seconds=seconds, users=users)


def asked_for(items: int, loss: str, *, seconds: float, users: int, seed: int) -> dict[str, Any]:
    """What a measurement depends on: one of anything else is not taken up."""
    params = read_yaml(ROOT / "params.yaml")
    return {
        "items": items,
        "loss": loss,
        "seconds": seconds,
        "users": users,
        "seed": seed,
        "code": code_of(*CODE),
        "params": {section: params[section] for section in ("train_embeddings", "train_rnn")},
        "device": device_name(),
    }


def merged(folder: Path, *, sizes: tuple[int, ...], seconds: float, users: int) -> Experiment:
    """What the seeds found that were measured with this code, a table for each size."""
    tables = []
    for items in sizes:
        found = {loss: _seeds(folder, items, loss, seconds=seconds, users=users) for loss in LOSSES}
        dense = _mean(found["softmax"], "events_per_second")
        cases = [
            {
                "name": "dense" if loss == "softmax" else "sampled",
                "params": {"train_rnn": {"loss": loss, "negatives": "auto"}},
                "metrics": {"perplexity": {"value": _mean(of, "perplexity"), "ci95": None}},
                "against": None,
                "difference": None,
                "without_request": None,
                "numbers": {
                    "events/s": _mean(of, "events_per_second"),
                    "/ dense": round(_mean(of, "events_per_second") / dense, 2),
                    "events learned": _mean(of, "targets"),
                    "peak MB": _mean(
                        of, "peak_mb" if of[0]["device_peak_mb"] is None else "device_peak_mb"
                    ),
                },
            }
            for loss, of in found.items()
        ]
        one = found["softmax"][0]
        tables.append(
            {
                "log": f"{items:,} items",
                "title": f"{one['asked']['users']:,} users, {EVENTS_PER_USER} events each",
                "asked": "the last event of users held out",
                "population": f"{one['asked_for']:,} targets",
                "first_metric": "perplexity",
                "seeds": [one["asked"]["seed"] for one in found["softmax"]],
                "facts": {loss: [_told(one) for one in of] for loss, of in found.items()},
                "cases": cases,
                "params": {"width": WIDTH, "window": WINDOW, "batch": BATCH, "topic": TOPIC},
            }
        )
    return experiment_of("sampled", title=TITLE, note=NOTE, tables=tables)


def fit(items: int, loss: str, seconds: float, users: int, seed: int) -> None:
    """Train for some seconds, and tell speed and perplexity."""
    log, held_out = drawn_logs(users, items=items, seed=seed)
    case = Case(
        log="drawn",
        model="gru",
        loss=loss,
        folder="",
        window=WINDOW,
        batch=BATCH,
        width=WIDTH,
        negatives=1,
        dropout=0.0,
        seconds=seconds,
    )
    sections = read_params(ROOT / "params.yaml")
    embeddings = as_drawn(log, replace(sections.train_embeddings, dim=WIDTH), device=device())
    params = replace(
        params_of(case, sections.train_rnn), ablation="one_rnn", negatives="auto", item_pull=0.0
    )
    trainer = RnnTrainer(
        log, params, embeddings=embeddings, seed=seed, device=device(), validation=None
    )
    meter = Meter(seconds)
    for number in count(1):
        before, enough = 0, False
        for done, _, _ in trainer.epoch(number):
            enough = meter.tell(done - before)
            before = done
            if enough:
                break
        if enough:
            break
    peak = device_peak_mb()
    say_speed(
        meter,
        perplexity=perplexity_of(trainer.finished_model(), held_out),
        asked_for=int((np.diff(held_out.offsets) > 0).sum()),
        negatives=None if loss == "softmax" else int(np.sqrt(items)),
        device=device().type,
        device_peak_mb=peak,
    )


def drawn_logs(users: int, *, items: int, seed: int) -> tuple[LogUntil, Events]:
    """What is learned from, and the histories of others who are asked about."""
    rng = generator(seed, "sampled", items)
    learned = drawn_events(users, items=items, rng=rng)
    held_out = drawn_events(TARGETS, items=items, rng=rng)
    cut = Cut.at(learned, int(learned.timestamp.max()) + 1, n_items=items)
    return LogUntil(learned, cut), held_out


def drawn_events(users: int, *, items: int, rng: np.random.Generator) -> Events:
    """Users of as many events each, a second apart."""
    item = np.empty((users, EVENTS_PER_USER), dtype=np.int64)
    for place in range(EVENTS_PER_USER):
        anything = (items * rng.random(users) ** 4.0).astype(np.int64)
        if place > 0:
            topic = item[:, place - 1] // TOPIC * TOPIC
            near = np.minimum(topic + rng.integers(0, TOPIC, users), items - 1)
            anything = np.where(rng.random(users) < STAYS, near, anything)
        item[:, place] = anything
    n = item.size
    return Events(
        offsets=np.concatenate([[0], np.arange(users + 1) * EVENTS_PER_USER]),
        item_idx=(item.reshape(-1) + 1).astype(np.int32),
        timestamp=np.arange(n, dtype=np.int64) * 1_000_000,
        session_idx=np.repeat(np.arange(1, users + 1), EVENTS_PER_USER),
        session_start=np.arange(n) % EVENTS_PER_USER == 0,
        event_type=np.zeros(n, dtype=np.int8),
        value=np.full(n, np.nan, dtype=np.float32),
        source_row=np.arange(n, dtype=np.int64),
    )


def perplexity_of(model: TwoTimeScale, events: Events) -> float:
    """Of the last event of each user, over the whole catalogue."""
    users = np.arange(1, events.n_users + 1)
    history = np.diff(events.offsets)[1:] - 1
    queries = torch.from_numpy(user_vectors(model, events, user_idx=users, history=history))
    target = torch.from_numpy(events.item_idx[events.offsets[2:] - 1].astype(np.int64))
    nll: list[npt.NDArray[np.float32]] = []
    with torch.inference_mode():
        for first in range(0, len(target), TARGETS_AT_ONCE):
            rows = slice(first, first + TARGETS_AT_ONCE)
            scores = model.scores(queries[rows].to(model.item_bias.device))  # (B, V + 1)
            asked = target[rows].to(scores.device)
            nll.append(
                torch.nn.functional.cross_entropy(scores, asked, reduction="none").cpu().numpy()
            )
    return round(float(np.exp(np.concatenate(nll).mean(dtype=np.float64))), 2)


def _seeds(
    folder: Path, items: int, loss: str, *, seconds: float, users: int
) -> list[dict[str, Any]]:
    """What was measured as it would be now, by seeds that have both losses."""
    found = []
    for path in sorted(folder.glob(f"*-{items}-{loss}.json")):
        seed = int(path.name.partition("-")[0])
        both = [folder / f"{seed}-{items}-{one}.json" for one in LOSSES]
        if all(
            one.exists()
            and read_json(one)["asked"]
            == asked_for(items, of, seconds=seconds, users=users, seed=seed)
            for one, of in zip(both, LOSSES, strict=True)
        ):
            found.append(read_json(path))
        else:
            print(f"event=left_aside file={path.name}: run its seed again", flush=True)
    return found


def _mean(found: list[dict[str, Any]], key: str) -> float:
    return round(float(np.mean([one[key] for one in found])), 2)


def _told(one: dict[str, Any]) -> dict[str, Any]:
    kept = {key: one[key] for key in ("machine", "commit", "changed_since", "device", "seconds")}
    return {**kept, "seconds": {"train_rnn": one["seconds"]}}
