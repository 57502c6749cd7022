"""Reads Axolotl files with Axolotl's own schema; runs in the environment of `requirements-axolotl.txt`."""

import json
import sys
from pathlib import Path

import yaml
from axolotl.utils.schemas.config import AxolotlInputConfig

read = [
    AxolotlInputConfig(**yaml.safe_load(Path(file).read_text())).model_dump(mode="json", exclude_none=True)
    for file in sys.argv[1:]
]
sys.stdout.write(json.dumps({"keys": sorted(AxolotlInputConfig.model_fields), "read": read}))
