"""Checks that compare rows: duplicates, leakage, shifts, and whether there are enough rows to evaluate with."""

import hashlib
import random
from pathlib import Path

import numpy as np
import pytest

from tests.quality_data import Row, clean_rows, finding, lines_of, report_on, sentence, write_rows
from trainer.quality.ngrams import Texts, runs, sorted_unique
from trainer.quality.pairs import SIMILARITY, Sketch, SketchTask, near_pairs, sketch
from trainer.quality.processes import Processes
from trainer.quality.shared_text import SHINGLE_BYTES, SharedText, own_shingles, slots_of
from trainer.spec import QualityThresholds
from trainer.spec.quality import Threshold


def edited(row: Row, word: str = "otherwise") -> Row:
    """The row with the last word of its output replaced."""
    return {**row, "output": " ".join([*row["output"].split()[:-1], word])}


def test_exact_duplicates_are_found_without_regard_to_case_and_space(tmp_path: Path) -> None:
    rows = clean_rows(60)
    rows[20] = rows[4]
    rows[33] = {**rows[4], "output": rows[4]["output"].upper().replace(" ", "  ")}
    held_out = write_rows(tmp_path / "b.jsonl", clean_rows(20, seed=1))
    report = report_on(write_rows(tmp_path / "a.jsonl", rows), held_out)
    assert finding(report, "exact_duplicates").lines == ("a.jsonl:21 (as a.jsonl:5)", "a.jsonl:34 (as a.jsonl:5)")
    assert finding(report, "near_duplicates").rows == 0
    assert finding(report, "conflicting_responses").rows == 0


def test_conflicts_are_prompts_with_several_responses(tmp_path: Path) -> None:
    rows = clean_rows(60)
    rows[20] = {**rows[4], "output": sentence(random.Random(9), 14)}
    rows[30] = rows[8]
    held_out = write_rows(tmp_path / "b.jsonl", clean_rows(20, seed=1))
    report = report_on(write_rows(tmp_path / "a.jsonl", rows), held_out)
    expected = ("a.jsonl:5 (as a.jsonl:21)", "a.jsonl:21 (as a.jsonl:5)")
    assert finding(report, "conflicting_responses").lines == expected


def test_plain_text_has_no_prompts_to_conflict(tmp_path: Path) -> None:
    draw = random.Random(2)
    report = report_on(write_rows(tmp_path / "a.jsonl", [{"text": sentence(draw, 20)} for _ in range(40)]))
    assert finding(report, "conflicting_responses").rows == 0
    assert finding(report, "leakage_prompts").rows == 0


def test_near_duplicates_are_found(tmp_path: Path) -> None:
    rows = clean_rows(80)
    rows[50] = edited(rows[10])
    rows[51] = edited(rows[10], "different")
    held_out = write_rows(tmp_path / "b.jsonl", clean_rows(20, seed=1))
    report = report_on(write_rows(tmp_path / "a.jsonl", rows), held_out)
    assert lines_of(report, "near_duplicates") == ["a.jsonl:51", "a.jsonl:52"]
    assert "(as a.jsonl:11)" in finding(report, "near_duplicates").lines[0]


def test_leakage_is_found_between_two_files(tmp_path: Path) -> None:
    train, held_out = clean_rows(80), clean_rows(30, seed=1)
    held_out[3] = train[40]
    held_out[5] = edited(train[41])
    held_out[7] = {**train[42], "output": sentence(random.Random(8), 14)}
    words = (train[43]["instruction"] + " " + train[43]["input"] + " " + train[43]["output"]).split()
    held_out[9]["output"] += " " + " ".join(words[3:16])
    held_out[11]["output"] += " " + " ".join(words[3:15])
    report = report_on(write_rows(tmp_path / "a.jsonl", train), write_rows(tmp_path / "b.jsonl", held_out))
    assert finding(report, "leakage_exact").lines == ("b.jsonl:4 (as a.jsonl:41)",)
    assert finding(report, "leakage_near").lines == ("b.jsonl:6 (as a.jsonl:42)",)
    assert finding(report, "leakage_prompts").lines == ("b.jsonl:6 (as a.jsonl:42)", "b.jsonl:8 (as a.jsonl:43)")
    assert "b.jsonl:10 (as a.jsonl:44)" in finding(report, "leakage_ngrams").lines
    assert "b.jsonl:12" not in lines_of(report, "leakage_ngrams")
    assert finding(report, "near_duplicates").rows == 0


def test_test_rows_are_looked_at_too(tmp_path: Path) -> None:
    """A search never sees them, so that what is wrong with them would be seen when all is paid for."""
    train, held_out, test = clean_rows(80), clean_rows(30, seed=1), clean_rows(25, seed=2)
    files = write_rows(tmp_path / "a.jsonl", train), write_rows(tmp_path / "b.jsonl", held_out)
    clean = report_on(*files, test=write_rows(tmp_path / "t.jsonl", test))
    assert (finding(clean, "test_leakage_near").verdict, clean.test_rows) == ("pass", 25)
    test[3] = train[40]
    test[5] = edited(train[41])
    test[7] = held_out[2]
    report = report_on(*files, test=write_rows(tmp_path / "t.jsonl", [*test, '{"instruction": 3}']))
    assert lines_of(report, "unreadable_rows") == ["t.jsonl:26"]
    assert finding(report, "test_leakage_exact").lines == ("t.jsonl:4 (as a.jsonl:41)",)
    assert finding(report, "test_leakage_exact").message == "1 of 25 test rows are training rows too (4.00%)"
    assert finding(report, "test_leakage_near").lines == ("t.jsonl:6 (as a.jsonl:42)",)
    assert finding(report, "leakage_exact").rows == finding(report, "leakage_near").rows == 0
    assert report.test_sha256 == hashlib.sha256((tmp_path / "t.jsonl").read_bytes()).hexdigest()
    without = report_on(*files)
    assert (without.test_rows, finding(without, "test_leakage_near").verdict) == (None, "not_run")


def test_test_rows_that_the_search_chooses_by_are_told(tmp_path: Path) -> None:
    """Whoever gives the evaluation file as the test file too has no rows that the search never saw."""
    train, held_out, test = clean_rows(80), clean_rows(30, seed=1), clean_rows(25, seed=2)
    files = write_rows(tmp_path / "a.jsonl", train), write_rows(tmp_path / "b.jsonl", held_out)
    same = report_on(*files, test=files[1])
    found = finding(same, "test_eval_leakage_exact")
    assert (same.verdict, found.verdict, found.measure) == ("fail", "fail", 1.0)
    assert found.message == "30 of 30 test rows are evaluation rows too (100.00%)"
    assert finding(same, "test_leakage_exact").verdict == "pass"
    test[4], test[6] = held_out[2], edited(held_out[3])
    report = report_on(*files, test=write_rows(tmp_path / "t.jsonl", test))
    assert finding(report, "test_eval_leakage_exact").lines == ("t.jsonl:5 (as b.jsonl:3)",)
    near = finding(report, "test_eval_leakage_near")
    assert (near.verdict, near.lines) == ("warn", ("t.jsonl:7 (as b.jsonl:4)",))
    assert near.message == "1 of 25 test rows are nearly an evaluation row (4.00%)"
    assert finding(report, "test_leakage_exact").rows == finding(report, "test_leakage_near").rows == 0
    few = report_on(*files, test=files[1], max_eval_examples=5)
    assert (few.eval_rows, finding(few, "test_eval_leakage_exact").rows) == (5, 30)  # confirmations look at all
    off = QualityThresholds(test_eval_leakage_exact=Threshold(), test_eval_leakage_near=Threshold())
    assert report_on(*files, test=files[1], thresholds=off).verdict == "pass"


def test_test_rows_are_compared_with_those_that_the_split_holds_out(tmp_path: Path) -> None:
    rows = clean_rows(80)
    path = write_rows(tmp_path / "a.jsonl", rows)
    report = report_on(path, eval_fraction=0.25, test=write_rows(tmp_path / "t.jsonl", rows[:40]))
    trained, judged = (finding(report, f"test_{side}leakage_exact") for side in ("", "eval_"))
    assert (trained.rows + judged.rows, trained.verdict, judged.verdict) == (40, "fail", "fail")
    assert 0 < judged.rows < trained.rows


def test_leakage_is_found_through_the_split_that_training_makes(tmp_path: Path) -> None:
    rows = clean_rows(100)
    path = write_rows(tmp_path / "a.jsonl", [*rows, *rows])
    report = report_on(path, eval_fraction=0.1, split_seed=3)
    rng = np.argsort(_training_keys(3, 200), kind="stable")
    held_out, trained = {int(row) for row in rng[180:]}, {int(row) for row in rng[:180]}
    leaked = sorted(row for row in held_out if (row + 100) % 200 in trained)
    assert finding(report, "leakage_exact").rows == len(leaked) > 10
    assert lines_of(report, "leakage_exact") == [f"a.jsonl:{row + 1}" for row in leaked][:10]
    assert (report.train_rows, report.eval_rows) == (180, 20)


def _training_keys(seed: int, size: int) -> np.ndarray:
    from trainer.common.random_keys import stream_key

    return np.random.PCG64(stream_key("split", seed, size)).random_raw(size)


def test_only_rows_that_trials_see_are_compared(tmp_path: Path) -> None:
    rows = clean_rows(60)
    path = write_rows(tmp_path / "a.jsonl", [*rows, *rows])
    held_out = write_rows(tmp_path / "b.jsonl", clean_rows(20, seed=1))
    whole = report_on(path, held_out)
    some = report_on(path, held_out, max_train_examples=30, max_eval_examples=7)
    assert finding(whole, "exact_duplicates").rows == 60
    assert finding(some, "exact_duplicates").rows < 10
    assert (some.train_rows, some.eval_rows) == (30, 7)


def test_a_long_template_does_not_make_rows_alike(tmp_path: Path) -> None:
    template = sentence(random.Random(5), 150)
    rows = [{**row, "instruction": template} for row in clean_rows(400, words=6)]
    held_out = [{**row, "instruction": template} for row in clean_rows(80, seed=1, words=6)]
    report = report_on(write_rows(tmp_path / "a.jsonl", rows), write_rows(tmp_path / "b.jsonl", held_out))
    for check in ("near_duplicates", "leakage_near", "leakage_ngrams"):
        assert finding(report, check).rows == 0, check


def test_many_random_edits_are_judged_as_their_exact_similarity_says() -> None:
    draw = random.Random(11)
    texts = [sentence(draw, 40).encode() for _ in range(150)]
    for number in range(75):
        words = texts[number].split()
        for _ in range(draw.randint(1, 6)):
            words[draw.randrange(len(words))] = b"otherwise"
        texts[75 + number] = b" ".join(words)
    made = sketch(SketchTask(Texts.of(texts), np.zeros(0, np.int64), None))
    pairs = near_pairs(_Plain(texts), np.arange(150), made, np.zeros(0, np.int64), Processes(1))  # type: ignore[arg-type]
    sets = [{text[i : i + SHINGLE_BYTES] for i in range(len(text) - SHINGLE_BYTES + 1)} for text in texts]
    exact = {
        (one, two)
        for two in range(150)
        for one in range(two)
        if len(sets[one] & sets[two]) / len(sets[one] | sets[two]) >= SIMILARITY
    }
    found = {(int(one), int(two)) for one, two in pairs}
    assert found <= exact
    assert len(found) >= 0.95 * len(exact) > 20


class _Plain:
    """Texts that are all training rows."""

    def __init__(self, texts: list[bytes]) -> None:
        self._texts = texts
        self.is_eval = np.zeros(len(texts), dtype=np.bool_)

    def texts(self, positions: np.ndarray) -> Texts:
        return Texts.of([self._texts[position] for position in positions])


def test_a_large_cluster_is_found_whole_with_few_comparisons(tmp_path: Path) -> None:
    rows = clean_rows(200, words=30)
    for number in range(100, 140):
        rows[number] = edited(rows[100], f"ending{number}")
    held_out = clean_rows(20, seed=1)
    held_out[4] = edited(rows[100], "endingzz")
    report = report_on(write_rows(tmp_path / "a.jsonl", rows), write_rows(tmp_path / "b.jsonl", held_out))
    assert finding(report, "near_duplicates").rows == 39
    assert lines_of(report, "leakage_near") == ["b.jsonl:5"]


def test_shared_text_is_what_many_rows_have() -> None:
    template = b"the same instruction stands above every input of this file: "
    texts = [template + sentence(random.Random(number), 8).encode() for number in range(80)]
    shared = SharedText()
    shared.add(slots_of(Texts.of(texts[:50])))
    shared.add(slots_of(Texts.of(texts[50:])))
    left = own_shingles(Texts.of(texts), shared.slots(80))
    whole = Texts.of(texts).shingles(SHINGLE_BYTES)
    assert (whole.lengths - left.lengths).min() >= len(template) - SHINGLE_BYTES
    assert (left.lengths > 20).all()
    assert len(shared.slots(4000)) == 0


def test_runs_stay_inside_their_rows() -> None:
    texts = Texts.of([b"abcdefgh", b"", b"abc", b"abcdefghi", b"xabcdefg"])
    shingles = texts.shingles(7)
    assert shingles.lengths.tolist() == [2, 0, 0, 3, 2]
    rows = [shingles.values[start:stop] for start, stop in zip(shingles.starts, shingles.starts[1:], strict=False)]
    assert rows[0].tolist() == rows[3][:2].tolist()
    assert rows[4][1] == rows[0][0]
    assert len(sorted_unique(shingles.values)) == 4
    words = Texts.of([b"one, two: three", b"one two", "猫は犬".encode(), b"..."]).words()
    assert words.lengths.tolist() == [3, 2, 3, 0]
    assert words.values[:2].tolist() == words.values[3:5].tolist()
    assert runs(words, 3).lengths.tolist() == [1, 0, 1, 0]


def test_longer_responses_in_the_evaluation_are_a_shift(tmp_path: Path) -> None:
    train = write_rows(tmp_path / "a.jsonl", [r for n in (8, 10, 12) for r in clean_rows(100, seed=n, words=n)])
    same = write_rows(tmp_path / "b.jsonl", [r for n in (8, 10, 12) for r in clean_rows(60, seed=50 + n, words=n)])
    longer = write_rows(tmp_path / "c.jsonl", [r for n in (10, 12, 30) for r in clean_rows(60, seed=50 + n, words=n)])
    assert finding(report_on(train, same), "length_shift").verdict == "pass"
    assert finding(report_on(train, longer), "length_shift").verdict == "warn"


def test_another_language_in_the_evaluation_is_a_shift(tmp_path: Path) -> None:
    pytest.importorskip("py3langid")
    english = "The weather in the old town was cold, and nobody wanted to walk along the river today."
    german = "Das Wetter in der alten Stadt war kalt, und niemand wollte heute am Fluss entlang gehen."

    def rows(count: int, german_rows: int) -> list[Row]:
        texts = [german] * german_rows + [english] * (count - german_rows)
        return [{"instruction": f"Number {number}", "output": f"{text} {number}"} for number, text in enumerate(texts)]

    train = write_rows(tmp_path / "a.jsonl", rows(200, 20))
    alike = report_on(train, write_rows(tmp_path / "b.jsonl", rows(60, 6)))
    shifted = report_on(train, write_rows(tmp_path / "c.jsonl", rows(60, 50)))
    assert finding(alike, "language_shift").verdict == "pass"
    assert finding(shifted, "language_shift").verdict == "fail"
    assert shifted.statistics["language_de"] == pytest.approx(0.1)


def test_without_py3langid_the_check_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.quality.distributions.find_spec", lambda _: None)
    report = report_on(write_rows(tmp_path / "a.jsonl", clean_rows(40)))
    assert finding(report, "language_shift").verdict == "not_run"
    assert "py3langid" in finding(report, "language_shift").message


def test_a_quarter_of_the_rows_resolves_half_as_well(tmp_path: Path) -> None:
    train = write_rows(tmp_path / "a.jsonl", clean_rows(300))
    held_out = [row for seed in range(1, 5) for row in clean_rows(100, seed=1)]
    many = finding(report_on(train, write_rows(tmp_path / "b.jsonl", held_out)), "eval_size")
    few = finding(report_on(train, write_rows(tmp_path / "c.jsonl", held_out[:100])), "eval_size")
    assert few.measure == pytest.approx(2 * many.measure, rel=0.01)


def test_the_rows_said_to_be_enough_are_enough(tmp_path: Path) -> None:
    train = write_rows(tmp_path / "a.jsonl", clean_rows(300))
    small = report_on(train, write_rows(tmp_path / "b.jsonl", clean_rows(4, seed=1)))
    assert finding(small, "eval_size").verdict == "warn"
    enough = round(small.statistics["eval_rows_enough"])
    assert f"{enough} rows are enough" in finding(small, "eval_size").message
    # Four rows say little about the variation, so leave a margin.
    large = report_on(train, write_rows(tmp_path / "c.jsonl", clean_rows(3 * enough, seed=1)))
    assert finding(large, "eval_size").verdict == "pass"


def test_the_variation_is_that_of_the_losses_not_of_the_lengths(tmp_path: Path) -> None:
    rows = [{"instruction": f"row {number}", "output": " ".join(["same"] * (5 + number % 20))} for number in range(200)]
    report = report_on(write_rows(tmp_path / "a.jsonl", rows), eval_fraction=0.2)
    assert report.statistics.get("loss_variation", 0.0) == pytest.approx(0.0, abs=1e-9)


def test_sketches_say_which_texts_are_too_short() -> None:
    made: Sketch = sketch(SketchTask(Texts.of([b"short", b"a text that is long enough"]), np.zeros(0, np.int64), None))
    assert made.comparable.tolist() == [False, True]
    assert made.bands.shape == (2, 18)
