"""A data check that finds nothing, in place of `python -m trainer check-data`: the same pipes and exit status."""

import sys

from trainer.spec import QualityReport

if __name__ == "__main__":
    sys.stdin.readline()
    report = QualityReport(verdict="pass", findings=(), train_rows=1, eval_rows=1, train_sha256="0" * 64)
    print(report.model_dump_json())
