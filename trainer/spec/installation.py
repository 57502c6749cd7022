"""What is installed for training on a machine."""

from trainer.spec.base import Frozen


class Gpu(Frozen):
    """A device as the NVIDIA driver sees it."""

    name: str
    memory_bytes: int


class Part(Frozen):
    """An optional package. `version` is None where it is not installed; `problem` is "" where it works."""

    version: str | None = None
    problem: str = ""


class Installation(Frozen):
    """`cuda` is the version that torch was built for, None for a build without; `visible` are devices torch can use."""

    driver: str | None = None
    gpus: tuple[Gpu, ...] = ()
    torch: Part = Part()
    cuda: str | None = None
    visible: int = 0
    flash_attn: Part = Part()
    deepspeed: Part = Part()
