"""Rows that changed are told from rows that nobody had looked at."""

from trainer.spec import DataFingerprints, DataSpec, ModelSpec, Parameters, TrialSpec

DATA = DataSpec(train="train.jsonl", eval="eval.jsonl", test="test.jsonl")


def prints(train: str = "1", evaluation: str = "2", test: str | None = "3") -> DataFingerprints:
    return DataFingerprints(train=64 * train, eval=64 * evaluation, test=None if test is None else 64 * test)


def test_every_part_that_was_known_may_not_change() -> None:
    assert prints().changed(prints(), DATA) is None
    for found, path in (
        (prints(train="9"), "train.jsonl"),
        (prints(evaluation="9"), "eval.jsonl"),
        (prints(test="9"), "test.jsonl"),
    ):
        assert (prints().changed(found, DATA) or "").startswith(f"{path} has changed since training on it began")


def test_test_rows_that_a_search_never_looked_at_have_not_changed() -> None:
    assert prints(test=None).changed(prints(), DATA) is None
    assert prints().changed(prints(test=None), DATA) is None
    assert "train.jsonl has changed" in (prints(test=None).changed(prints(train="9"), DATA) or "")


def test_a_snapshot_of_the_search_is_of_the_same_trial_with_its_test_rows() -> None:
    with_test = TrialSpec(model=ModelSpec(path="m"), data=DATA, parameters=Parameters())
    without = with_test.model_copy(update={"data": DATA.model_copy(update={"test": None})})
    assert with_test.digest() == without.digest()
    other = with_test.model_copy(update={"data": DATA.model_copy(update={"eval": None})})
    assert other.digest() != with_test.digest()
