"""What makes a row outdated."""

from pathlib import Path

from benchmarks.search.digests import digest

CODE = '"""Doc."""\n\ndef double(x):\n    """Twice."""\n    return 2 * x\n'


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_words_about_code_do_not_matter(tmp_path: Path) -> None:
    commented = CODE.replace("Doc.", "More words.").replace("Twice.", "Doubles.").replace("2 * x", "(2 * x)  # why")
    assert digest([written(tmp_path / "a.py", CODE)]) == digest([written(tmp_path / "b.py", commented)])


def test_code_tables_and_facts_matter(tmp_path: Path) -> None:
    code, table = written(tmp_path / "a.py", CODE), written(tmp_path / "a.npz", "1")
    known = {
        digest([code, table], "optuna==5"),
        digest([written(tmp_path / "b.py", CODE.replace("2", "3")), table], "optuna==5"),
        digest([code, written(tmp_path / "b.npz", "2")], "optuna==5"),
        digest([code, table], "optuna==6"),
    }
    assert len(known) == 4


def test_a_folder_is_all_its_modules(tmp_path: Path) -> None:
    for name in ("one", "two"):
        written(tmp_path / name / "part" / "a.py", CODE)
    assert digest([tmp_path / "one"]) == digest([tmp_path / "two"])
    written(tmp_path / "two" / "b.py", CODE)
    assert digest([tmp_path / "one"]) != digest([tmp_path / "two"])


def test_where_our_names_come_from_does_not_matter_but_what_they_are_called_does(tmp_path: Path) -> None:
    made = [
        digest([written(tmp_path / f"{number}.py", f"{imports}\n{CODE}")])
        for number, imports in enumerate(
            [
                "from hpo_service.domain import ladder\nfrom trainer import keys",
                "from trainer.common import random_keys as keys\nfrom hpo_service.core.study_rules import ladder",
                "from hpo_service.core.study_rules import rungs\nfrom trainer.common import random_keys as keys",
                "from scipy.stats import ladder\nfrom trainer import keys",
            ]
        )
    ]
    assert made[0] == made[1]
    assert len(set(made)) == 3
