"""`python -m hpo_service.cli` is `hpo`."""

from hpo_service.cli import main

main()
