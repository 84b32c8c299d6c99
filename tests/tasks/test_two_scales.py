"""The stages of two time scales: t* by step sizes, kept by every later fit; and an ablation."""

import numpy as np
import pytest

from recsys_core.artifacts import read_json, write_json
from recsys_core.config import Params, check_params, read_yaml
from recsys_core.errors import ConfigError
from recsys_core.layout import Layout
from recsys_core.models.step_sizes import choose_t_star
from recsys_core.sections import ExportOnnx
from recsys_core.tables import read_events
from tasks.cuts import read_cuts
from tasks.embedding_files import read_step_sizes
from tasks.memory_files import write_memory
from tasks.model_files import read_model
from tasks.stages import export_onnx, refit, train_embeddings, train_rnn
from tests.serving_world import make_memory
from tests.tasks.test_training_killed import make_workspace

RHO = 0.9


def params_with(layout: Layout, **train_rnn: object) -> Params:
    value = read_yaml(layout.params)
    value["train_rnn"] |= {"max_epochs": 1, "patience": 1, **train_rnn}
    value["train_embeddings"] |= {"max_epochs": 1, "patience": 1}
    value["train_memory"]["terms"] = []
    return check_params(value, where="params")


def run_stage_two(layout: Layout, params: Params) -> None:
    train_rnn.run(
        layout=layout,
        train_rnn=params.train_rnn,
        train_memory=params.train_memory,
        features=params.features,
        evaluate=params.evaluate,
        first_metric=params.first_metric,
        seed=params.seed,
    )


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A workspace with stage one's output."""
    layout = make_workspace(tmp_path_factory.mktemp("scales"))
    params = params_with(layout)
    train_embeddings.run(
        layout=layout,
        train_embeddings=params.train_embeddings,
        train_rnn=params.train_rnn,
        train_memory=params.train_memory,
        evaluate=params.evaluate,
        first_metric=params.first_metric,
        seed=params.seed,
    )
    return layout


def test_a_cohort_that_only_validation_has_teaches_nobody(layout: Layout) -> None:
    """Somebody comes to t* events in the validation period, and nobody had more before it."""
    events = read_events(layout.events)
    cuts = read_cuts(layout, events)
    params = params_with(layout, t_star=int(cuts.valid.counts.max()))
    assert (cuts.test.counts > params.train_rnn.t_star).any()
    run_stage_two(layout, params)
    assert read_json(layout.stage("train_rnn") / "training.json")["epochs"]["active"] == 0
    curve = read_json(layout.report("train_rnn_curve"))
    assert {row["phase"] for row in curve} == {"together", "inactive"}


def test_t_star_by_step_sizes_is_in_every_model(
    layout: Layout, caplog: pytest.LogCaptureFixture
) -> None:
    steps = read_step_sizes(layout.stage("train_embeddings"))
    assert read_json(layout.report("step_sizes")) == steps.rows()
    assert (np.diff(steps.users) <= 0).all()
    params = params_with(layout, t_star="auto", rho=RHO)
    run_stage_two(layout, params)
    t_star = choose_t_star(steps, rho=RHO)
    assert ("event=t_star_edge" in caplog.text) == (t_star in (5, 200))
    folder = layout.stage("train_rnn")
    assert read_model(folder).config.t_star == t_star
    assert read_model(folder / "until_valid").config.t_star == t_star
    report = read_json(layout.report("train_rnn"))
    assert (report["t_star"], report["ablation"]) == (t_star, "none")
    assert "leak" not in report
    write_memory(layout.stage("train_memory"), make_memory(n_items=30, terms=()))
    refit.run(
        layout=layout,
        refit=params.refit,
        train_embeddings=params.train_embeddings,
        train_rnn=params.train_rnn,
        train_memory=params.train_memory,
        features=params.features,
        seed=params.seed,
    )
    assert read_model(layout.stage("refit")).config.t_star == t_star


def test_what_leaks_says_so_and_is_not_exported(layout: Layout) -> None:
    run_stage_two(layout, params_with(layout, ablation="learned_phi"))
    assert "trusts it more than it deserves" in read_json(layout.report("train_rnn"))["leak"]
    assert read_model(layout.stage("train_rnn")).config.ablation == "learned_phi"
    refitted = Layout(layout.root / "refitted")
    for name in ("model.json", "model.safetensors"):
        target = refitted.stage("refit") / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((layout.stage("train_rnn") / name).read_bytes())
    write_memory(refitted.stage("refit"), make_memory(n_items=30, terms=()))
    write_json(refitted.stage("refit") / "training.json", {"epochs": 1, "cut": "end"})
    with pytest.raises(ConfigError, match=r"learned_phi.* is not exported"):
        export_onnx.run(layout=refitted, export_onnx=ExportOnnx(k=5, new_items=False, step=False))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"t_star": 0}, "t_star is 0"),
        ({"t_star": "some"}, "auto"),
        ({"rho": 1.0}, "rho is 1.0"),
        ({"ablation": "all"}, "one_rnn"),
        ({"apart_rate": 0.0}, "apart_rate is 0.0"),
        ({"max_epochs_apart": -1}, "max_epochs_apart is -1"),
    ],
)
def test_wrong_values_are_refused(layout: Layout, change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        params_with(layout, **change)
