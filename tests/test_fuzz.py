"""Bad input in bulk: configurations, interaction files, feature files, checkpoints.

Each example has to end in an error of ours with one clear line, or in a correct run: finite scores, every held-out
positive ranked, no number in place of a defect. Anything else (a traceback from deep inside, a hang) fails.
"""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pytest
from helpers.toy import make_toy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedvlr_plugin.config import (
    Attack,
    Conditions,
    ExecutionConfig,
    Faults,
    ModelConfig,
    Privacy,
    Protocol,
    Robust,
    RunSpec,
    Secure,
    TrainingConfig,
    build_config,
)
from fedvlr_plugin.data.recbole.loader import prepare
from fedvlr_plugin.errors import FedVLRError
from fedvlr_plugin.experiment.rows import known_rows
from fedvlr_plugin.experiment.run import check_spec, run
from fedvlr_plugin.federation.checkpoint import Checkpoints
from fedvlr_plugin.federation.simulation import Federation
from fedvlr_plugin.federation.training import fit

TOY = make_toy()
FEDERATED = [row for row in known_rows() if row.split("+")[0] in ("FedAvg", "FCF", "FedNCF", "PFedRec", "FedRAP")]
FUZZ = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 10**19),
    st.floats(),
    st.text(max_size=6),
    st.lists(st.integers(), max_size=2),
)
GOOD: dict[str, st.SearchStrategy[object]] = {
    "rounds": st.integers(1, 2),
    "local_epochs": st.integers(1, 2),
    "batch_size": st.integers(1, 40),
    "participation": st.floats(0.01, 1.0),
    "client_optimizer": st.sampled_from(["adam", "sgd"]),
    "server_optimizer": st.sampled_from(["adam", "sgd"]),
    "client_lr": st.floats(1e-6, 10.0),
    "router_lr": st.one_of(st.none(), st.floats(1e-6, 10.0)),
    "server_lr": st.floats(1e-6, 10.0),
    "server_lr_id": st.floats(1e-6, 10.0),
    "eval_every": st.integers(1, 3),
    "patience": st.one_of(st.none(), st.integers(1, 3)),
}
SHAPE: dict[str, st.SearchStrategy[object]] = {
    "dim": st.integers(4, 12),
    "views": st.lists(st.sampled_from(["sum", "mlp", "gate", "only:text", "only:audio", "nothing"]), max_size=3),
    "router_hidden": st.integers(1, 5),
    "modalities": st.one_of(st.none(), st.lists(st.sampled_from(["vision", "text", "audio", ""]), max_size=2)),
    "id_embedding": st.booleans(),
    "params": st.dictionaries(st.sampled_from(["lam", "mu", "cap", "other"]), st.floats(-1, 20), max_size=2),
}
CONDITIONS: dict[str, st.SearchStrategy[object]] = {
    "faults": st.builds(Faults, dropout=st.floats(0, 1), stragglers=st.floats(0, 1)),
    "robust": st.builds(
        Robust,
        rule=st.sampled_from(["norm_clip", "median", "trimmed_mean", "krum", "multi_krum", "geometric_median"]),
        trim=st.floats(0, 0.49),
        malicious=st.floats(0, 0.49),
    ),
    "attack": st.builds(
        Attack,
        kind=st.sampled_from(["sign_flip", "scaling", "promotion"]),
        share=st.floats(0, 1),
        item=st.one_of(st.none(), st.integers(0, 40)),
    ),
    "secure": st.builds(Secure, lost_before=st.floats(0, 0.9), lost_after=st.floats(0, 0.9)),
    "privacy": st.builds(Privacy, clip=st.floats(1e-3, 10), noise_multiplier=st.floats(0, 5)),
}


def without(strategies, key):
    return {name: strategy for name, strategy in strategies.items() if name != key}


def one_line(error: FedVLRError) -> None:
    assert str(error).strip() and "\n" not in str(error).strip(), f"not one clear line: {error!r}"


def check_result(result, n_users):
    assert len(result.test.users) == n_users
    assert all(0 <= a + t < TOY.interactions.n_items for a, t in zip(result.test.above, result.test.tied, strict=True))
    assert all(math.isfinite(entry.train_loss) for entry in result.curve)


@FUZZ
@given(st.dictionaries(st.sampled_from([*GOOD, *SHAPE, "lr", "Rounds", "0"]), ODD, max_size=4))
def test_odd_settings_are_refused_in_one_line_or_taken(values):
    for kind in (TrainingConfig, ModelConfig, ExecutionConfig, Protocol):
        try:
            build_config(kind, values)
        except FedVLRError as error:
            one_line(error)


@FUZZ
@given(st.data())
def test_any_valid_configuration_runs_or_is_refused_in_one_line(data):
    training = data.draw(st.fixed_dictionaries({"rounds": GOOD["rounds"]}, optional=without(GOOD, "rounds")))
    shape = data.draw(st.fixed_dictionaries({"dim": SHAPE["dim"]}, optional=without(SHAPE, "dim")))
    conditions = data.draw(st.fixed_dictionaries({}, optional=CONDITIONS)) if data.draw(st.booleans()) else {}
    try:
        spec = RunSpec(
            dataset="toy",
            row=data.draw(st.sampled_from(FEDERATED)),
            seed=data.draw(st.integers(0, 10**6)),
            training=build_config(TrainingConfig, training),
            model=build_config(ModelConfig, shape),
            conditions=build_config(Conditions, conditions),
        )
        check_spec(spec, ExecutionConfig(), TOY.interactions.n_items)
        result = run(spec, data=TOY)
    except FedVLRError as error:
        one_line(error)
    else:
        check_result(result, TOY.interactions.n_users)


CELLS = st.sampled_from(
    [
        "",
        "nan",
        "-1",
        "1e999",
        "abc",
        "3.5",
        "9" * 30,
        "inf",
        '"',
        "\x00",
        " 4 ",
        "0x10",
        "1,2",
        "\u0661",
        "None",
        "true",
    ]
)


def good_table() -> list[list[str]]:
    source = np.random.default_rng(0)
    lines = [["userID", "itemID", "rating", "timestamp", "split_label"]]
    for user in range(6):
        chosen = source.choice(9, 6, replace=False)
        for place, item in enumerate(chosen):
            label = max(0, place - 3)
            lines.append([str(user), str(item), "1", str(100 * user + place), str(label)])
    return lines


@st.composite
def inter_files(draw) -> bytes:
    lines = good_table()
    for _ in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from(["cell", "cut", "double", "column", "swap", "header"]))
        row = draw(st.integers(0, max(0, len(lines) - 1)))
        if not lines or not lines[row]:
            continue
        column = draw(st.integers(0, len(lines[row]) - 1))
        if kind == "cell":
            lines[row][column] = draw(CELLS)
        elif kind == "cut":
            del lines[row]
        elif kind == "double":
            lines.append(list(lines[row]))
        elif kind == "column":
            lines = [[c for k, c in enumerate(line) if k != column] for line in lines]
        elif kind == "swap":
            lines[row].reverse()
        else:
            lines[0] = [draw(CELLS) for _ in lines[0]]
    text = draw(st.sampled_from([",", "\t", ";"])).join
    content = draw(st.sampled_from(["\n", "\r\n"])).join(text(line) for line in lines).encode()
    content = draw(st.sampled_from([b"", b"\xef\xbb\xbf", b"\xff"])) + content
    return content[: draw(st.integers(0, len(content)))] if draw(st.integers(0, 4)) == 0 else content


def write_folder(root: Path, inter: bytes, features: dict[str, bytes]) -> Path:
    folder = root / "fuzzed"
    folder.mkdir(exist_ok=True)
    for file in folder.iterdir():
        file.unlink()
    (folder / "inter.csv").write_bytes(inter)
    for name, content in features.items():
        (folder / name).write_bytes(content)
    return root


def try_folder(root: Path) -> bool:
    """Whether the folder could be used; a run on it is correct then."""
    try:
        data = prepare("fuzzed", root)
        spec = RunSpec(dataset="fuzzed", row="FCF", training=TrainingConfig(rounds=1), model=ModelConfig(dim=4))
        result = run(spec, data=data)
    except FedVLRError as error:
        one_line(error)
        return False
    interactions = data.interactions
    assert len(interactions.train_items) == 0 or int(interactions.train_items.max()) < interactions.n_items
    assert all(np.isfinite(modality.matrix).all() for modality in data.features.values())
    assert all(0 <= a + t < interactions.n_items for a, t in zip(result.test.above, result.test.tied, strict=True))
    return True


@FUZZ
@given(inter_files())
def test_any_interaction_file_is_refused_in_one_line_or_run_correctly(tmp_path, content):
    try_folder(write_folder(tmp_path, content, {}))


def matrix_bytes(matrix) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, matrix, allow_pickle=matrix.dtype == object)
    return buffer.getvalue()


@FUZZ
@given(
    st.sampled_from(["float32", "float16", "int64", "bool", "complex64", "U3", "object", "float64"]),
    st.lists(st.integers(0, 10), max_size=3),
    st.sampled_from([0.0, 1.0, math.nan, math.inf, 1e300]),
    st.integers(0, 400),
    st.integers(0, 9),
)
def test_any_feature_file_is_refused_in_one_line_or_run_correctly(tmp_path, dtype, shape, value, cut, flip):
    with np.errstate(all="ignore"):
        content = bytearray(matrix_bytes(np.full(shape, value).astype(dtype)))
    if flip == 0 and content:
        content[cut % len(content)] ^= 8
    elif flip == 1:
        content = content[:cut]
    inter = "\n".join(",".join(line) for line in good_table()).encode()
    try_folder(write_folder(tmp_path, inter, {"text_features.npy": bytes(content)}))


def test_the_table_that_is_broken_is_usable_when_whole(tmp_path):
    inter = "\n".join(",".join(line) for line in good_table()).encode()
    features = {"text_features.npy": matrix_bytes(np.random.default_rng(0).normal(size=(9, 3)).astype("float32"))}
    assert try_folder(write_folder(tmp_path, inter, features))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / "c"
    spec = RunSpec(dataset="toy", row="FCF+ours", training=TrainingConfig(rounds=2), model=ModelConfig(dim=4))
    federation = Federation(spec, "FCF", "blfm", TOY)
    fit(federation, lambda: {"ndcg@50": 0.0}, checkpoints=Checkpoints(path, 1))
    return spec, path, path.read_bytes()


@FUZZ
@given(st.data())
def test_a_changed_checkpoint_is_never_silently_used(checkpoint, data):
    spec, path, content = checkpoint
    changed = bytearray(content)
    kind = data.draw(st.sampled_from(["flip", "cut", "insert", "noise"]))
    place = data.draw(st.integers(0, len(content) - 1))
    if kind == "flip":
        changed[place] ^= 1 << data.draw(st.integers(0, 7))
    elif kind == "cut":
        changed = changed[:place]
    elif kind == "insert":
        changed[place:place] = data.draw(st.binary(min_size=1, max_size=9))
    else:
        changed = bytearray(data.draw(st.binary(max_size=200)))
    path.write_bytes(bytes(changed))
    with pytest.raises(FedVLRError) as caught:
        Checkpoints(path, 1).load(Federation(spec, "FCF", "blfm", TOY))
    one_line(caught.value)
