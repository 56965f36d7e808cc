"""A round's record inside a stored run: the same bytes as ever, and nothing that is not finite or not known."""

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from fedvlr_plugin.evaluation.round_record import RoundRecord


class Stored(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    curve: tuple[RoundRecord, ...]


BYTES = (
    '{"curve":[{"round":3,"seconds":{"local":0.5},"train_loss":0.25,"valid":{"hr@50":1.0},"left_out":{"late":2},'
    '"accounts":{"epsilon":1.5}}]}'
)


def test_clients_and_samples_are_not_stored_and_the_rest_keeps_its_order():
    record = RoundRecord(3, {"local": 0.5}, 0.25, {"hr@50": 1}, {"late": 2}, {"epsilon": 1.5}, clients=7, samples=70)
    assert Stored(curve=(record,)).model_dump_json() == BYTES
    (loaded,) = Stored.model_validate_json(BYTES).curve
    assert loaded == RoundRecord(3, {"local": 0.5}, 0.25, {"hr@50": 1.0}, {"late": 2}, {"epsilon": 1.5})


def test_records_of_before_there_were_accounts_still_load():
    (loaded,) = Stored.model_validate_json('{"curve":[{"round":1,"seconds":{},"train_loss":0,"valid":null}]}').curve
    assert loaded == RoundRecord(1, {}, 0.0, None)


@pytest.mark.parametrize(
    "record", [RoundRecord(1, {}, float("nan"), None), RoundRecord(1, {"a": float("inf")}, 0.0, None)]
)
def test_a_number_that_is_not_finite_is_not_stored(record):
    with pytest.raises(ValidationError, match="finite number"):
        Stored(curve=(record,))


def test_an_unknown_key_is_refused():
    with pytest.raises(ValidationError, match="more"):
        Stored.model_validate_json(BYTES.replace('"round":3', '"round":3,"more":1'))
